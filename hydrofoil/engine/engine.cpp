#include "hydrofoil/engine/engine.h"

#include <ATen/ops/mul.h>

#include <algorithm>
#include <cmath>

#include "hydrofoil/base/error.h"
#include "hydrofoil/base/log.h"
#include "hydrofoil/optim/grad_clip.h"

namespace hydrofoil::engine {
namespace {

optim::LossScalerOptions loss_scaler_options(const EngineOptions& options) {
  optim::LossScalerOptions scaler;
  const auto& autocast = options.torch_autocast;
  if (autocast.enabled && autocast.dtype == DType::kFloat16 && !options.fp16.enabled) {
    // Gradients pass through fp16 operators: scaled as torch.amp.GradScaler does by default.
    scaler.dynamic = true;
    scaler.initial_scale = 65536.0;
    scaler.window = 2000;
    scaler.hysteresis = 1;
    scaler.min_scale = std::ldexp(1.0, -16);
    return scaler;
  }
  if (!options.fp16.enabled) return scaler;
  scaler.dynamic = options.fp16.dynamic();
  if (scaler.dynamic) {
    scaler.initial_scale = std::ldexp(1.0, static_cast<int>(options.fp16.initial_scale_power));
  } else {
    scaler.static_scale = options.fp16.loss_scale;
  }
  scaler.window = options.fp16.loss_scale_window;
  scaler.min_scale = options.fp16.min_loss_scale;
  scaler.hysteresis = options.fp16.hysteresis;
  scaler.consecutive_hysteresis = options.fp16.consecutive_hysteresis;
  return scaler;
}

bool has_betas(std::optional<optim::OptimizerKind> kind) {
  using optim::OptimizerKind;
  return kind == OptimizerKind::kAdam || kind == OptimizerKind::kAdamW || kind == OptimizerKind::kLion;
}

std::vector<double> momentum_of(std::optional<optim::OptimizerKind> kind, const optim::Hyperparameters& group) {
  if (has_betas(kind)) return {group.beta1, group.beta2};
  if (kind == optim::OptimizerKind::kSgd) return {group.momentum};
  return {};
}

}  // namespace

Engine::Engine(EngineOptions options, std::unique_ptr<zero::Runtime> runtime,
               std::optional<optim::OptimizerKind> native_optimizer)
    : options_(std::move(options)),
      runtime_(std::move(runtime)),
      report_(options_, *runtime_),
      native_optimizer_(native_optimizer),
      loss_scaler_(loss_scaler_options(options_)) {
  HYDROFOIL_CHECK_ARG(native_optimizer_ || options_.data_types.grad_accum_dtype == DType::kFloat32, "initialize",
                      "data_types.grad_accum_dtype: a client optimizer works on fp32 gradients, got a 16-bit dtype");
  configure_rounds();
}

Engine::~Engine() {
  if (boundaries_ != nullptr) boundaries_->attach(nullptr);
}

void Engine::own_model(std::shared_ptr<zero::Boundaries> boundaries, std::vector<zero::NamedTensor> buffers) {
  if (boundaries != nullptr) boundaries->attach(runtime_.get());
  boundaries_ = std::move(boundaries);
  buffers_ = std::move(buffers);
}

void Engine::with_gathered(const std::vector<at::Tensor>& parameters, const std::function<void()>& use,
                           std::optional<int> modifier_rank) {
  runtime_->require_alive("with_gathered");
  const int size = runtime_->gather_group().size();
  HYDROFOIL_CHECK_ARG(!modifier_rank || (*modifier_rank >= 0 && *modifier_rank < size), "with_gathered",
                      "modifier_rank: got ", modifier_rank.value_or(0), ", expected 0 to ", size - 1);
  std::vector<int64_t> indices;
  for (const at::Tensor& parameter : parameters) {
    indices.push_back(runtime_->find(parameter));
    HYDROFOIL_CHECK_ARG(indices.back() >= 0, "with_gathered", "tensor ", indices.size() - 1,
                        " is no parameter of this engine");
  }
  std::sort(indices.begin(), indices.end());
  indices.erase(std::unique(indices.begin(), indices.end()), indices.end());
  const auto versions = runtime_->enter_access(indices);
  try {
    use();
  } catch (...) {
    try {  // only the release is left to do: the ranks may not agree on more
      runtime_->leave_access(indices, versions, std::nullopt);
    } catch (const InvalidArgument&) {  // NOLINT(bugprone-empty-catch): the first error counts
    }
    throw;
  }
  runtime_->leave_access(indices, versions, modifier_rank);
}

void Engine::own_observers(std::shared_ptr<comm::CommLog> comm_log, std::unique_ptr<StepTrace> trace) {
  comm_log_ = std::move(comm_log);
  trace_ = std::move(trace);
  if (trace_) trace_->begin_step(runtime_->gather_group(), counters_.global_steps + 1);
}

std::vector<std::shared_ptr<zero::InitialShard>> Engine::destroy(bool gather) {
  trace_.reset();
  if (boundaries_ != nullptr) boundaries_->attach(nullptr);
  boundaries_ = nullptr;
  return runtime_->destroy(gather);
}

void Engine::configure_rounds() {
  const double scale = 1.0 / static_cast<double>(options_.gradient_accumulation_steps);
  runtime_->reducer().configure_rounds(is_boundary() && !no_sync_, scale, counters_.micro_steps);
  runtime_->reducer().expect_scaled(loss_scaled_ || loss_scaler_.scale() == 1.0);
}

void Engine::load_counters(const Counters& counters) {
  runtime_->require_alive("load_checkpoint");
  counters_ = counters;
  window_start_ = counters.micro_steps;
  if (trace_) trace_->begin_step(runtime_->gather_group(), counters_.global_steps + 1);
  configure_rounds();
}

void Engine::begin_phase(Phase phase) {
  if (phase != Phase::kStep) report_.begin_micro_step();
  report_.begin(phase);
}

void Engine::end_phase(Phase phase) {
  if (!report_.end(phase) || !options_.memory_breakdown || !runtime_->alive()) return;
  const bool after = phase == Phase::kStep;  // its step is counted already
  const int64_t step = counters_.global_steps + (after ? 0 : 1);
  if (!(after ? last_.boundary : is_boundary()) || !report_.is_due(step, true) || !logs_info()) return;
  log_info(memory_line(detail::concat("after ", phase_name(phase), " of step ", step), runtime_->memory(),
                       runtime_->parameters().front().parameter.device()));
}

double Engine::begin_backward(bool scale_wrt_accumulation) {
  runtime_->require_alive("backward");
  recover();
  loss_scaled_ = true;
  configure_rounds();
  const double undo = scale_wrt_accumulation ? 1.0 : static_cast<double>(options_.gradient_accumulation_steps);
  return loss_scaler_.scale() * undo;
}

at::Tensor Engine::scale_loss(const at::Tensor& loss, bool scale_wrt_accumulation) {
  const double factor = begin_backward(scale_wrt_accumulation);
  const at::Tensor scaled = factor == 1.0 ? loss : loss.to(at::kFloat).mul(factor);
  runtime_->watch_loss(scaled);
  return scaled;
}

at::Tensor Engine::backward(const at::Tensor& loss) {
  HYDROFOIL_CHECK_ARG(native_optimizer_.has_value(), "backward",
                      "this engine has no optimizer; it can only run forward");
  HYDROFOIL_CHECK_ARG(loss.defined() && loss.numel() == 1, "backward", "loss: got ",
                      loss.defined() ? detail::concat("a tensor of shape ", loss.sizes()) : "an undefined tensor",
                      ", expected one element");
  HYDROFOIL_CHECK_ARG(loss.requires_grad(), "backward",
                      "the loss needs no gradient: no parameter took part in it, or grad mode was off");
  const PhaseScope phase(*this, Phase::kBackward);
  const at::Tensor scaled = scale_loss(loss);
  scaled.backward();
  return loss.detach().div(static_cast<double>(options_.gradient_accumulation_steps));
}

void Engine::set_schedule(const optim::ScheduleOptions& options) {
  std::vector<double> base_lrs;
  for (const auto& group : groups_) base_lrs.push_back(group.lr);
  schedule_.emplace(options, std::move(base_lrs));
  apply_schedule();
}

void Engine::apply_schedule() {
  const optim::ScheduleValues values = schedule_.value().values();
  const bool betas = has_betas(native_optimizer_);
  for (size_t g = 0; g < groups_.size(); ++g) {
    groups_[g].lr = values.lr.at(g);
    if (!values.momentum) continue;
    (betas ? groups_[g].beta1 : groups_[g].momentum) = *values.momentum;
    if (betas && values.beta2) groups_[g].beta2 = *values.beta2;
  }
}

StepResult Engine::step() {
  HYDROFOIL_CHECK_ARG(!groups_.empty(), "step", "this engine has no parameter groups of its own");
  const StepResult result = step(groups_);
  if (result.applied && schedule_) {
    schedule_->step();
    apply_schedule();
  }
  if (result.boundary) log_step(result);
  return result;
}

// Of a C++ program; Python logs its own, whose hyperparameters and logger are Python's.
void Engine::log_step(const StepResult& result) {
  const int64_t step = counters_.global_steps;
  if (report_.is_due(step, false)) {
    Progress progress{.step = step,
                      .skipped = counters_.skipped_steps,
                      .grad_norm = result.grad_norm,
                      .samples_per_second = report_.throughput().take_recent(),
                      .num_ranks = runtime_->gather_group().size()};
    if (loss_scaler_.scale() != 1.0) progress.loss_scale = loss_scaler_.scale();
    for (const auto& group : groups_) {
      progress.lr.push_back(group.lr);
      progress.momentum.push_back(momentum_of(native_optimizer_, group));
    }
    log_info(progress_line(progress));
  }
  if (report_.measures_phases() && report_.is_due(step, true)) log_info(breakdown_line(step, report_.take_mean()));
}

bool Engine::is_boundary() const {
  return boundary_.value_or((counters_.micro_steps - window_start_ + 1) % options_.gradient_accumulation_steps == 0);
}

void Engine::set_batch_sizes(int64_t micro_batch_size, int64_t accumulation_steps) {
  runtime_->require_alive("set_train_batch_size");
  HYDROFOIL_CHECK_ARG(micro_batch_size >= 1 && accumulation_steps >= 1, "set_train_batch_size", "got micro batches of ",
                      micro_batch_size, " and ", accumulation_steps, " accumulation steps, expected at least 1");
  HYDROFOIL_CHECK_ARG(counters_.micro_steps == window_start_, "set_train_batch_size", "got a call after ",
                      counters_.micro_steps - window_start_, " micro steps of an accumulation window, expected one ",
                      "between windows, after the step that ends one");
  options_.train_micro_batch_size_per_gpu = micro_batch_size;
  options_.gradient_accumulation_steps = accumulation_steps;
  options_.train_batch_size = micro_batch_size * accumulation_steps * runtime_->gather_group().size();
  configure_rounds();
}

void Engine::set_boundary(std::optional<bool> is_boundary) {
  runtime_->require_alive("set_gradient_accumulation_boundary");
  boundary_ = is_boundary;
  configure_rounds();
}

void Engine::set_no_sync(bool no_sync) {
  runtime_->require_alive("no_sync");
  HYDROFOIL_CHECK_ARG(!no_sync || options_.zero.stage < 2, "no_sync", "got ZeRO stage ", options_.zero.stage,
                      ", expected 0 or 1: stages 2 and 3 reduce every gradient in its backward");
  no_sync_ = no_sync;
  if (runtime_->alive()) configure_rounds();
}

void Engine::report_overflow(const zero::GradientSummary& summary) {
  overflow_report_ = detail::concat("step ", counters_.global_steps + 1, " skipped: gradient of parameter '",
                                    summary.parameter, "' is not finite on rank ", summary.rank);
  if (summary.micro_step >= 0) overflow_report_ += detail::concat(", micro step ", summary.micro_step);
  if (options_.fp16.enabled) overflow_report_ += detail::concat(", loss scale ", loss_scaler_.scale());
  if (runtime_->gather_group().rank() == 0) log_warning(overflow_report_);
}

bool Engine::recover() {
  runtime_->recover();
  if (!runtime_->take_aborted_window()) return false;
  counters_.micro_steps = window_start_;
  log_warning(
      "a backward ended with an exception: the gradients of its accumulation window are dropped, and the window "
      "starts anew");
  return true;
}

bool Engine::begin_step() {
  runtime_->require_alive("step");
  last_ = {};
  step_span_.reset();
  client_update_ = false;
  micro_step_failed_ = recover();
  if (micro_step_failed_ && options_.gradient_accumulation_steps > 1) return false;
  HYDROFOIL_CHECK_ARG(!no_sync_, "step", "called inside no_sync()");
  if (!is_boundary()) return false;
  // Not in the backward: losses of other models (a GAN's) may bring gradients that zero_grad() then drops.
  HYDROFOIL_CHECK_ARG(!runtime_->reducer().window_has_unscaled_rounds(), "step",
                      "gradients of this step come from a loss that was not multiplied by the loss scale, ",
                      loss_scaler_.scale(),
                      ": call engine.backward(loss), or engine.scale(loss).backward(); "
                      "zero_grad() drops them");
  last_.boundary = true;
  step_span_.emplace(runtime_->recorder(), trace::Lane::kStep, "optimizer step", "");
  runtime_->prepare_step();
  const zero::GradientSummary summary = zero::summarize_gradients(*runtime_);
  const double scale = loss_scaler_.scale();
  last_.grad_norm = summary.norm / scale;
  grad_norm_ = last_.grad_norm;
  const bool checks = !options_.bf16.enabled || options_.bf16.check_grad_overflow;
  last_.overflow = checks && !summary.finite;
  if (last_.overflow) report_overflow(summary);
  const double clip =
      last_.overflow ? 1.0 : optim::clip_coefficient(static_cast<float>(last_.grad_norm), options_.gradient_clipping);
  gradient_factor_ = static_cast<float>(clip / scale);
  loss_scaler_.update(last_.overflow);
  return !last_.overflow;
}

void Engine::update_native(std::span<const optim::Hyperparameters> groups) {
  HYDROFOIL_CHECK_ARG(native_optimizer_.has_value(), "step", "this engine has a client optimizer");
  zero::step_optimizer(*runtime_, *native_optimizer_, groups, ++counters_.optimizer_steps, gradient_factor_);
  last_.applied = true;
}

std::vector<zero::ClientShard> Engine::begin_client_update() {
  zero::scale_gradients(*runtime_, gradient_factor_);
  ++counters_.optimizer_steps;
  last_.applied = client_update_ = true;
  return zero::client_shards(*runtime_);
}

StepResult Engine::finish_step() {
  if (last_.applied) {
    if (client_update_) zero::apply_masters(*runtime_);
    runtime_->publish_step();
  } else if (last_.boundary) {
    runtime_->reducer().reset_window();
    ++counters_.skipped_steps;
  }
  loss_scaled_ = false;
  report_.end_micro_step(last_.boundary, options_.train_batch_size);
  if (!micro_step_failed_) ++counters_.micro_steps;
  if (last_.boundary) {
    ++counters_.global_steps;
    counters_.global_samples += options_.train_batch_size;
    window_start_ = counters_.micro_steps;
  }
  configure_rounds();
  step_span_.reset();
  if (last_.boundary && trace_) {
    trace_->end_step(runtime_->gather_group(), counters_.global_steps);
    trace_->begin_step(runtime_->gather_group(), counters_.global_steps + 1);
  }
  return last_;
}

StepResult Engine::step(std::span<const optim::Hyperparameters> groups) {
  StepResult result;
  {
    const PhaseScope phase(*this, Phase::kStep);
    if (begin_step()) update_native(groups);
    result = finish_step();
  }
  if (result.boundary) report_.end_step();
  return result;
}

void Engine::zero_grad() {
  runtime_->require_alive("zero_grad");
  runtime_->recover();
  runtime_->gatherer().release_kept();
  runtime_->reducer().reset_window();
  loss_scaled_ = false;
  configure_rounds();
}

void Engine::set_loss_scale(double scale) {
  loss_scaler_.set_scale(scale);
  if (runtime_->alive()) configure_rounds();
}

void Engine::load_loss_scaler(const optim::LossScalerState& state) {
  loss_scaler_.load_state(state);
  if (runtime_->alive()) configure_rounds();
}

}  // namespace hydrofoil::engine
