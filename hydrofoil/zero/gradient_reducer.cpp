#include "hydrofoil/zero/gradient_reducer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "hydrofoil/base/error.h"
#include "hydrofoil/zero/span.h"

namespace hydrofoil::zero {
namespace {
constexpr size_t kMaxInFlight = 2;  // units whose buckets wait for the end of their reduction
// A peer that got fewer gradients reduces a unit only at the end of its backward, and may need our next gather before:
// inside backward no wait is without a limit. After it the round goes on, with more buckets in memory.
constexpr std::chrono::milliseconds kPatience{1000};
}  // namespace

GradientReducer::GradientReducer(std::vector<std::unique_ptr<Unit>>& units, comm::Group group, ReductionOptions options,
                                 bool sharded, WaitTimes& waits, std::shared_ptr<trace::Recorder> recorder)
    : units_(units),
      group_(std::move(group)),
      options_(options),
      sharded_(sharded),
      recorder_(std::move(recorder)),
      waits_(waits),
      rounds_(units.size()) {
  for (size_t u = units_.size(); u-- > 0;) {
    if (units_[u]->buckets.empty()) continue;
    order_.push_back(static_cast<int64_t>(u));
    rounds_[u].expected = units_[u]->num_trainable;
  }
}

void GradientReducer::configure_rounds(bool reduce, double scale, int64_t micro_step) {
  window_ends_ = reduce;
  scale_ = scale;
  micro_step_ = micro_step;
}

void GradientReducer::configure_as(const GradientReducer& other) {
  configure_rounds(other.window_ends_, other.scale_, other.micro_step_);
  expect_scaled(other.scaled_);
}

void GradientReducer::open_round() {
  if (!scaled_) window_has_unscaled_rounds_ = true;
  round_open_ = true;
  next_ = 0;
  deferred_ = at::GradMode::is_enabled();
  diverged_ = false;
  allow_narrow(!deferred_ && scale_ == 1.0);
  late_.clear();
  completed_.clear();
  for (auto& round : rounds_) {
    round.num_gradients = 0;
    round.launched = false;
    round.late = false;
  }
}

void GradientReducer::on_gradient(size_t u, size_t b, size_t i, const at::Tensor& gradient) {
  if (!round_open_) open_round();
  UnitRound& round = rounds_[u];
  if (round.launched || units_[u]->buckets[b]->would_round(i)) {
    round.late = true;
    ++round.num_gradients;
    late_.push_back({u, b, i, gradient});
    return;
  }
  take(u, b, i, gradient);
  if (++round.num_gradients == round.expected) completed_.push_back(static_cast<int64_t>(u));
  if (reduces_rounds() && !deferred_ && round.num_gradients >= round.expected) launch_ready();
}

void GradientReducer::allow_narrow(bool narrow) {
  for (const int64_t u : order_) {
    for (auto& bucket : units_[u]->buckets) bucket->set_narrow(narrow);
  }
}

void GradientReducer::take(size_t u, size_t b, size_t i, const at::Tensor& gradient) {
  GradientBucket& bucket = *units_[u]->buckets[b];
  const bool finite = bucket.accumulate(i, gradient, scale_);
  if (!finite && !non_finite_) non_finite_ = {bucket.group().slots()[i].name, micro_step_};
}

// The last unit waits for the end of the backward, which is near: then autograd has dropped the unit's own gradients
// (an embedding's are large), and their place is the shard's.
void GradientReducer::launch_ready() {
  while (next_ + 1 < order_.size()) {
    const auto u = static_cast<size_t>(order_[next_]);
    if (rounds_[u].num_gradients < rounds_[u].expected) return;
    launch(u);
    ++next_;
  }
}

void GradientReducer::launch(size_t u) {
  settle(kMaxInFlight - 1);
  const Span span(recorder_.get(), trace::Lane::kCompute, "reduce", units_[u]->name);
  rounds_[u].launched = true;
  for (auto& bucket : units_[u]->buckets) {
    bucket->start_reduce(group_, {units_[u]->name, op_signature(OpKind::kReduce, static_cast<int64_t>(u))}, options_);
  }
  in_flight_.push_back(u);
  if (!options_.overlap) settle(0);
}

void GradientReducer::settle(size_t max_in_flight) {
  // Where ranks may part ways none is ever waited for: what takes part in the others' gathers is this thread.
  const auto patience = options_.join_divergent_units ? std::chrono::milliseconds(0) : kPatience;
  while (in_flight_.size() > max_in_flight && !diverged_) {
    for (const auto& bucket : units_[in_flight_.front()]->buckets) {
      const ScopedStopwatch wait(waits_.for_reduce());
      if (bucket->reduction_ends_within(patience)) continue;
      if (options_.join_divergent_units) return;
      diverged_ = true;
    }
    if (!diverged_) finish_oldest();
  }
}

void GradientReducer::finish_oldest() {
  const ScopedStopwatch wait(waits_.for_reduce());
  const size_t u = in_flight_.front();
  in_flight_.pop_front();
  const Span span(recorder_.get(), trace::Lane::kCompute, "reduce wait", units_[u]->name);
  for (auto& bucket : units_[u]->buckets) bucket->finish_reduce();
}

void GradientReducer::finish_all() {
  while (!in_flight_.empty()) finish_oldest();
}

void GradientReducer::end_round() {
  if (!round_open_) return;
  window_has_rounds_ = true;
  const bool reduce = reduces_rounds() && !deferred_;
  window_reduced_ = reduce;
  if (reduce) {
    diverged_ = false;  // every rank gets here: the waits from now on end
    for (; next_ < order_.size(); ++next_) launch(static_cast<size_t>(order_[next_]));
    finish_all();
    reduce_late();
    if (!order_agreed_) agree_on_order();
  }
  // What a round really brings is what the next one waits for.
  for (const int64_t u : order_) {
    auto& round = rounds_[u];
    if (round.num_gradients > 0 && (round.late || round.num_gradients < round.expected))
      round.expected = round.num_gradients;
  }
  round_open_ = false;
}

void GradientReducer::reduce_late() {
  std::vector<int64_t> late(units_.size());
  for (size_t u = 0; u < units_.size(); ++u) late[u] = rounds_[u].late ? 1 : 0;
  if (group_.size() > 1) {
    at::Tensor agreed = at::zeros({static_cast<int64_t>(units_.size())}, at::kLong);
    std::copy(late.begin(), late.end(), agreed.data_ptr<int64_t>());
    comm::OpInfo info{"late gradients", op_signature(OpKind::kControl, 0)};
    info.caller_waits = true;
    const ScopedStopwatch wait(waits_.for_reduce());
    group_.all_reduce(agreed, comm::ReduceOp::kMax, std::move(info)).wait();
    std::copy_n(agreed.data_ptr<int64_t>(), late.size(), late.begin());
  }
  allow_narrow(false);  // there may be several of one parameter
  for (const auto& gradient : late_) take(gradient.unit, gradient.bucket, gradient.slot, gradient.gradient);
  late_.clear();
  for (const int64_t u : order_) {
    if (late[u] != 0) launch(static_cast<size_t>(u));
  }
  finish_all();
}

void GradientReducer::agree_on_order() {
  std::vector<int64_t> order = completed_;
  for (const int64_t u : order_) {
    if (std::find(order.begin(), order.end(), u) == order.end()) order.push_back(u);
  }
  if (group_.size() > 1) {
    at::Tensor shared = at::zeros({static_cast<int64_t>(order.size())}, at::kLong);
    std::copy(order.begin(), order.end(), shared.data_ptr<int64_t>());
    group_.broadcast(shared, 0, {"order of reductions", op_signature(OpKind::kControl, 1)}).wait();
    std::copy_n(shared.data_ptr<int64_t>(), order.size(), order.begin());
  }
  order_ = std::move(order);
  order_agreed_ = true;
}

bool GradientReducer::abort_round() {
  if (!round_open_) return false;
  in_flight_.clear();
  reset_window();
  return true;
}

void GradientReducer::complete_window() {
  HYDROFOIL_CHECK_ARG(window_has_rounds_, "step", "no gradients: no backward has run since the last step");
  if (window_reduced_) {
    for (const int64_t u : order_) {
      for (auto& bucket : units_[u]->buckets) bucket->take_user_changes();
    }
    return;
  }
  diverged_ = false;
  for (const int64_t u : order_) launch(static_cast<size_t>(u));
  finish_all();
  window_reduced_ = true;
}

void GradientReducer::reset_window() {
  for (auto& unit : units_) {
    for (auto& bucket : unit->buckets) bucket->reset();
  }
  in_flight_.clear();
  late_.clear();
  non_finite_.reset();
  round_open_ = false;
  window_has_rounds_ = false;
  window_has_unscaled_rounds_ = false;
  window_reduced_ = false;
}

}  // namespace hydrofoil::zero
