#include "hydrofoil/zero/parameter_gatherer.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <utility>

#include "hydrofoil/base/clock.h"
#include "hydrofoil/base/error.h"
#include "hydrofoil/zero/autograd_hooks.h"
#include "hydrofoil/zero/span.h"

namespace hydrofoil::zero {

// NOTE [Boundaries]
// Forward: a scope's units are held from the way in to the way out. Backward: the first gradient of an output holds
// them again, the gradients of all inputs end it; where no input needs a gradient the end of the whole backward does.
// The last AccumulateGrad is no sign of the end: weights may be frozen or unused, and reentrant checkpoints run it
// twice. A forward inside a backward is a recomputation: what it gathered stays for the gradients that follow at once.
// A backward that makes a graph (create_graph=True) leaves its units gathered until the step or zero_grad: the backward
// through that graph reads them where no hook of a module tells.
// A unit that several scopes share (merged small modules) is not released between them but when another unit comes.
// A unit that memory is left for (retain()) is gathered once for forward and backward, or for all micro steps of a
// window: it goes when owners change it, or with its last backward. Autograd's recorded order is the same either way.

namespace {

constexpr int64_t kMaxGroups = 1 << 16;  // of a unit

std::vector<std::string> names_of(const std::vector<std::unique_ptr<Unit>>& units) {
  std::vector<std::string> names;
  for (const auto& unit : units) names.push_back(unit->name);
  return names;
}

}  // namespace

ParameterGatherer::ParameterGatherer(std::vector<std::unique_ptr<Unit>>& units, std::vector<ScopePlan> scopes,
                                     std::vector<std::string> scope_names, comm::Group group,
                                     const ReductionOptions& options, ErrorTranslator translate_hook_error,
                                     WaitTimes& waits, std::shared_ptr<trace::Recorder> recorder)
    : units_(units),
      scopes_(std::move(scopes)),
      scope_names_(std::move(scope_names)),
      group_(std::move(group)),
      overlap_(options.overlap),
      join_(options.join_divergent_units),
      record_(std::make_shared<UnitRecord>(names_of(units_))),
      translate_hook_error_(std::move(translate_hook_error)),
      recorder_(std::move(recorder)),
      waits_(waits),
      states_(units.size()) {
  for (const auto& unit : units_) {
    for (const auto& group : unit->groups) sharded_ = sharded_ || group->sharded();
  }
}

ParameterGatherer::~ParameterGatherer() = default;

std::vector<int> ParameterGatherer::units_of(int scope) const { return scopes_[scope].units; }

void ParameterGatherer::begin_pass() {
  if (!trace_.empty()) plans_[trace_grad_mode_].order = std::move(trace_);
  trace_.clear();
  trace_grad_mode_ = at::GradMode::is_enabled();
  cursor_ = 0;
}

std::shared_ptr<Invocation> ParameterGatherer::enter(int scope) {
  if (active_.empty() && !in_backward()) {
    end_backward();
    begin_pass();
  }
  auto invocation = std::make_shared<Invocation>();
  invocation->scope = scope;
  invocation->in_forward = true;
  invocation->forward_begin_ns = trace_time();
  active_.push_back(invocation);
  try {
    for (const int u : units_of(scope)) {
      acquire(u);
      invocation->forward_units.push_back(u);
    }
  } catch (...) {
    exit(invocation, true);
    throw;
  }
  return invocation;
}

void ParameterGatherer::exit(const std::shared_ptr<Invocation>& invocation, bool failed) {
  if (!invocation->in_forward) return;
  invocation->in_forward = false;
  active_.erase(std::remove(active_.begin(), active_.end(), invocation), active_.end());
  if (!failed) trace_call(in_backward() ? "recompute" : "forward", invocation->scope, invocation->forward_begin_ns);
  if (!failed && in_backward() && at::GradMode::is_enabled()) {
    open_backward(invocation, true);
  } else {
    for (const int u : invocation->forward_units) release(u);
    invocation->forward_units.clear();
    // No backward follows: what is outside must not see, or write, parameters that merely linger.
    if (active_.empty() && !in_backward() && !at::GradMode::is_enabled()) release_lingering();
  }
  if (failed) return;
  // What the program does next may wait for the other ranks: they must not need this one for their forward.
  if (join_ && active_.empty() && !in_backward())
    group_.barrier({.unit = "end of forward", .joinable = comm::Joinable{}});
  raise_if_written();
}

void ParameterGatherer::meet(const char* where) {
  const ScopedStopwatch wait(join_ ? waits_.for_gather() : nullptr);
  if (join_) group_.barrier({where, op_signature(OpKind::kControl, 3)});
}

void ParameterGatherer::watch_input(const std::shared_ptr<Invocation>& invocation, const at::Tensor& tensor) {
  if (!tensor.requires_grad()) return;
  if (tensor.is_leaf()) {  // its gradient may be complete before the module's others, and a hook on it would stay for
                           // life
    invocation->closes_by_inputs = false;
    return;
  }
  ++invocation->num_inputs;
  watch_gradient(
      tensor,
      [this, invocation, alive = std::weak_ptr<int>(alive_)] {
        if (alive.expired()) return;
        if (!invocation->in_backward || ++invocation->num_inputs_done < invocation->num_inputs) return;
        if (invocation->closes_by_inputs) close_backward(invocation);
      },
      translate_hook_error_);
}

void ParameterGatherer::watch_output(const std::shared_ptr<Invocation>& invocation, const at::Tensor& tensor) {
  if (!tensor.requires_grad() || tensor.is_leaf()) return;
  watch_gradient(
      tensor,
      [this, invocation, alive = std::weak_ptr<int>(alive_)] {
        if (alive.expired()) return;
        open_backward(invocation, false);
        if ((invocation->closes_by_inputs && invocation->num_inputs > 0) || invocation->end_queued) return;
        invocation->end_queued = true;
        queue_backward_callback(
            [this, invocation, alive] {
              if (!alive.expired() && invocation->in_backward) close_backward(invocation);
            },
            translate_hook_error_);
      },
      translate_hook_error_);
}

void ParameterGatherer::open_backward(const std::shared_ptr<Invocation>& invocation, bool from_forward) {
  if (on_backward_) on_backward_();
  // In a recomputation grad mode says nothing of the backward around it.
  if (!from_forward && at::GradMode::is_enabled()) invocation->keeps_units = true;
  if (invocation->in_backward) return;
  invocation->in_backward = true;
  invocation->backward_begin_ns = trace_time();
  invocation->num_inputs_done = 0;
  if (from_forward) {
    invocation->backward_units = std::move(invocation->forward_units);
    invocation->forward_units.clear();
  } else {
    for (const int u : units_of(invocation->scope)) {
      acquire(u);
      invocation->backward_units.push_back(u);
    }
  }
  open_backwards_.push_back(invocation);
}

void ParameterGatherer::close_backward(std::shared_ptr<Invocation> invocation) {
  invocation->in_backward = false;
  invocation->end_queued = false;
  open_backwards_.erase(std::remove(open_backwards_.begin(), open_backwards_.end(), invocation), open_backwards_.end());
  for (const int u : invocation->backward_units) keep_or_release(u, invocation->keeps_units);
  invocation->backward_units.clear();
  invocation->keeps_units = false;
  trace_call("backward", invocation->scope, invocation->backward_begin_ns);
}

int64_t ParameterGatherer::trace_time() const {
  return recorder_ != nullptr && recorder_->active() ? monotonic_ns() : 0;
}

void ParameterGatherer::trace_call(const char* what, int scope, int64_t begin_ns) const {
  if (begin_ns == 0) return;
  recorder_->add({.lane = trace::Lane::kCompute,
                  .what = what,
                  .subject = scope_names_[scope].empty() ? "(root)" : scope_names_[scope],
                  .begin_ns = begin_ns,
                  .end_ns = monotonic_ns()});
}

void ParameterGatherer::keep_or_release(int u, bool keep) {
  if (keep && std::find(kept_.begin(), kept_.end(), u) == kept_.end()) {
    kept_.push_back(u);
  } else {
    release(u);
  }
}

void ParameterGatherer::release_kept() {
  for (const int u : kept_) release(u);
  kept_.clear();
}

bool ParameterGatherer::access(int u) {
  if (!active_.empty()) {
    auto& invocation = *active_.back();
    const auto& held = invocation.forward_units;
    if (std::find(held.begin(), held.end(), u) != held.end()) return true;
    acquire(u);
    invocation.forward_units.push_back(u);
    auto& known = scopes_[invocation.scope].units;
    if (std::find(known.begin(), known.end(), u) == known.end()) known.push_back(u);
    return true;
  }
  if (!in_backward()) return false;
  if (std::find(backward_accesses_.begin(), backward_accesses_.end(), u) != backward_accesses_.end()) return true;
  if (on_backward_) on_backward_();
  acquire(u);
  backward_accesses_.push_back(u);
  return true;
}

void ParameterGatherer::hold(int u) { acquire(u); }

void ParameterGatherer::drop(int u) {
  release(u);
  // Not retained either: the user may have written it.
  if (states_[u].holds == 0 && states_[u].idle != Idle::kNo && active_.empty() && !in_backward()) release_now(u);
}

void ParameterGatherer::release_all(Idle idle) {
  for (size_t u = 0; u < states_.size(); ++u) {
    if (states_[u].idle == idle) release_now(static_cast<int>(u));
  }
}

void ParameterGatherer::release_lingering() { release_all(Idle::kLingering); }

void ParameterGatherer::release_retained() { release_all(Idle::kRetained); }

void ParameterGatherer::retain(int64_t budget_bytes) {
  std::vector<int64_t> bytes(units_.size());
  for (size_t u = 0; u < units_.size(); ++u) {
    for (const auto& group : units_[u]->groups) bytes[u] += group->sharded() ? group->full_bytes() : 0;
  }
  const std::vector<bool> keep = units_to_keep(bytes, join_ ? 0 : budget_bytes);
  retained_bytes_ = 0;
  for (size_t u = 0; u < units_.size(); ++u) {
    states_[u].retain = keep[u];
    if (keep[u]) retained_bytes_ += bytes[u];
    if (!keep[u] && states_[u].idle == Idle::kRetained) release_now(static_cast<int>(u));
  }
}

// Where no backward follows a unit does not stay, nor after the window's last backward.
bool ParameterGatherer::stays(int u) const {
  return states_[u].retain && (in_backward() ? forward_expected_ : at::GradMode::is_enabled());
}

// Where all ranks run the same units, the signature covers what they ran before: ranks that part ways are found at the
// next gather, even where they gather the same unit, one ahead of its use and the other because it is used.
comm::OpInfo ParameterGatherer::gather_info(int u, size_t g) const {
  comm::OpInfo info{units_[u]->name, op_signature(OpKind::kGather, u)};
  if (join_) {
    // Forward goes through the units upwards, backward downwards after it: the rank that is behind comes first.
    const auto num_units = static_cast<int64_t>(units_.size());
    info.joinable = {.id = u * kMaxGroups + static_cast<int64_t>(g), .place = in_backward() ? 2 * num_units - u : u};
  } else {
    info.signature ^= record_->hash();
    info.history = record_;
  }
  return info;
}

at::Tensor ParameterGatherer::contribution(const std::vector<std::unique_ptr<Unit>>& units, int64_t id) {
  return units.at(id / kMaxGroups)->groups.at(id % kMaxGroups)->owned_model();
}

void ParameterGatherer::start(int u) {
  for (size_t g = 0; g < units_[u]->groups.size(); ++g) {
    auto& group = units_[u]->groups[g];
    if (!group->sharded() || group->state() != FlatGroup::State::kReleased) continue;
    group->start_gather(group_, gather_info(u, g));
  }
}

void ParameterGatherer::acquire(int u) {
  UnitState& state = states_[u];
  if (state.holds++ > 0 || !sharded_) return;
  const bool lingered = state.idle == Idle::kLingering;
  state.idle = Idle::kNo;
  try {
    // Units that only linger make room first; the order is the same on every rank.
    release_lingering();
    if (!lingered && !join_) record_->add(u);
    const Span span(recorder_.get(), trace::Lane::kCompute, "gather wait", units_[u]->name);
    start(u);
    if (!lingered && !join_) follow_plan(u);
    const ScopedStopwatch wait(waits_.for_gather());
    for (auto& group : units_[u]->groups) group->finish_gather();
  } catch (...) {
    --state.holds;
    throw;
  }
}

void ParameterGatherer::follow_plan(int u) {
  trace_.push_back(u);
  const auto plan = plans_.find(trace_grad_mode_);
  if (plan == plans_.end()) return;
  const auto& order = plan->second.order;
  if (cursor_ >= order.size()) return;
  if (order[cursor_] != u) {
    cursor_ = order.size();  // another way through the model: gather on demand for the rest of this pass
    for (size_t other = 0; other < states_.size(); ++other) {
      const Idle idle = states_[other].idle;
      if (idle != Idle::kNo && idle != Idle::kRetained) release_now(static_cast<int>(other));
    }
    return;
  }
  ++cursor_;
  if (!overlap_ || cursor_ >= order.size()) return;
  size_t ahead = cursor_;
  while (ahead < order.size() && states_[order[ahead]].idle == Idle::kRetained) ++ahead;
  if (ahead == order.size()) return;
  const int next = order[ahead];
  if (states_[next].holds > 0 || states_[next].idle != Idle::kNo) return;
  start(next);
  states_[next].idle = Idle::kPrefetched;
}

void ParameterGatherer::release(int u) {
  UnitState& state = states_[u];
  HYDROFOIL_ASSERT(state.holds > 0, units_[u]->name);
  if (--state.holds > 0 || !sharded_) return;
  if (stays(u)) {
    state.idle = Idle::kRetained;
  } else if (units_[u]->num_scopes > 1) {
    state.idle = Idle::kLingering;
  } else {
    release_now(u);
  }
}

void ParameterGatherer::release_now(int u) {
  states_[u].idle = Idle::kNo;
  const Span span(recorder_.get(), trace::Lane::kCompute, "release", units_[u]->name);
  for (auto& group : units_[u]->groups) {
    if (written_.empty()) written_ = group->take_lost_write();
    group->release();
  }
}

void ParameterGatherer::raise_if_written() {
  if (written_.empty()) return;
  const std::string name = std::exchange(written_, "");
  HYDROFOIL_CHECK_ARG(false, "forward", "parameter ", name,
                      " was written in place while a module ran (Embedding(max_norm=...), a copy_ in forward): under "
                      "ZeRO stage 3 each rank would keep another value, and the write is lost. Write it between steps, "
                      "with hydrofoil.zero.GatheredParameters([parameter], modifier_rank=0); or use a lower stage");
}

void ParameterGatherer::end_backward() {
  while (!open_backwards_.empty()) close_backward(open_backwards_.back());
  for (const int u : backward_accesses_) release(u);
  backward_accesses_.clear();
  release_lingering();
}

void ParameterGatherer::finish_backward() {
  end_backward();
  raise_if_written();
}

void ParameterGatherer::release_idle() {
  release_kept();
  for (size_t u = 0; u < states_.size(); ++u) {
    HYDROFOIL_CHECK_ARG(states_[u].holds == 0, "step", "unit ", units_[u]->name,
                        " is gathered: leave GatheredParameters and the forward before");
    if (states_[u].idle != Idle::kNo) release_now(static_cast<int>(u));
  }
  raise_if_written();
}

}  // namespace hydrofoil::zero
