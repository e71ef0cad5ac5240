#include "hydrofoil/plan/detail/step_simulator.h"

#include <algorithm>

#include "hydrofoil/base/error.h"

namespace hydrofoil::plan::detail {
namespace {

constexpr size_t kMaxInFlight = 2;               // as zero::GradientReducer
constexpr const char* kEmbedding = "Embedding";  // takes token ids, which have no gradient

void add_cost(ModuleCost& sum, const ModuleCost& cost) {
  sum.saved_bytes += cost.saved_bytes;
  sum.left_by_backward_bytes += cost.left_by_backward_bytes;
  sum.forward_workspace_bytes = std::max(sum.forward_workspace_bytes, cost.forward_workspace_bytes);
  sum.backward_workspace_bytes = std::max(sum.backward_workspace_bytes, cost.backward_workspace_bytes);
  sum.forward += cost.forward;
  sum.backward += cost.backward;
}

}  // namespace

StepSimulator::StepSimulator(const ModelSpec& spec, const zero::UnitLayout& layout, const std::vector<UnitBytes>& units,
                             const Settings& settings, const Roofs& roofs)
    : spec_(spec), layout_(layout), units_(units), settings_(settings), roofs_(roofs), states_(units.size()) {
  build_scopes();
  if (!settings_.shards_parameters()) return;
  std::vector<int64_t> bytes;
  for (const auto& unit : units_) bytes.push_back(unit.num_gathers > 0 ? unit.full_bytes : 0);
  const std::vector<bool> keep = zero::units_to_keep(bytes, settings_.keep_gathered_bytes);
  for (size_t u = 0; u < units_.size(); ++u) states_[u].retain = keep[u];
}

void StepSimulator::build_scopes() {
  std::vector<int> scope_of(spec_.modules.size(), -1);  // that runs the module
  for (const auto& plan : layout_.scopes) {
    scope_of[plan.module] = static_cast<int>(scopes_.size());
    scopes_.push_back({.module = plan.module, .units = plan.units});
    for (const int u : plan.units) ++states_[u].num_scopes;
  }
  for (size_t m = 0; m < spec_.modules.size(); ++m) {
    const int parent = spec_.modules[m].parent;
    const int outer = parent < 0 ? -1 : scope_of[parent];
    if (scope_of[m] < 0) {
      scope_of[m] = outer;
    } else if (outer >= 0) {
      scopes_[outer].children.push_back(scope_of[m]);
    }
    if (!spec_.costs.empty()) add_cost(scopes_[scope_of[m]].cost, spec_.costs[m]);
  }
  std::vector<int> unit_of(spec_.parameters.size(), -1);
  for (size_t u = 0; u < layout_.units.size(); ++u) {
    for (const int64_t p : layout_.units[u].parameters) unit_of[p] = static_cast<int>(u);
  }
  // A parameter's gradient is complete when the first module that reads it has run its backward.
  std::vector<bool> seen(spec_.parameters.size(), false);
  for (size_t m = 0; m < spec_.modules.size(); ++m) {
    for (const int64_t p : spec_.modules[m].parameters) {
      if (seen[p]) continue;
      seen[p] = true;
      if (!spec_.parameters[p].trainable || !settings_.training) continue;
      auto& gradients = scopes_[scope_of[m]].gradients;
      const auto found =
          std::find_if(gradients.begin(), gradients.end(), [&](const auto& g) { return g.first == unit_of[p]; });
      if (found == gradients.end()) {
        gradients.emplace_back(unit_of[p], 1);
      } else {
        ++found->second;
      }
    }
  }
  bool any_trainable = false;
  find_gradients(0, any_trainable);
}

// Autograd runs through a module whose output depends on something trainable, and ends in its input where that does.
void StepSimulator::find_gradients(int scope, bool& any_trainable) {
  Scope& here = scopes_[scope];
  here.input_has_gradient = any_trainable && spec_.modules[here.module].type_name != kEmbedding;
  for (const int child : here.children) find_gradients(child, any_trainable);
  for (const int u : here.units) any_trainable = any_trainable || units_[u].num_trainable > 0;
  here.output_has_gradient = any_trainable;
}

Timeline StepSimulator::run() {
  const int64_t steps = settings_.accumulation_steps;
  repeats_ = 0;
  micro_step(0, true);  // records the orders
  drop_gradients();
  release_all(Idle::kRetained);
  timeline_ = {};
  traffic_.clear();
  now_ = 0;
  lane_free_.clear();
  int64_t number = 0;
  const bool retains = std::any_of(states_.begin(), states_.end(), [](const auto& state) { return state.retain; });
  if (retains && steps > 2) {  // it gathers what stays for the others
    repeats_ = 1;
    micro_step(number++, settings_.shards_gradients());
  }
  if (number < steps - 1) {
    const double begin = now_;
    repeats_ = steps - 1 - number;
    micro_step(number, settings_.shards_gradients());
    timeline_.left_out_micro_steps = repeats_ - 1;
    timeline_.repeated_micro_step = number;
    timeline_.repeated_end_s = now_;
    timeline_.micro_step_s = now_ - begin;
    now_ += static_cast<double>(timeline_.left_out_micro_steps) * timeline_.micro_step_s;
  }
  repeats_ = 1;
  micro_step(steps - 1, true);
  if (settings_.training) update();
  timeline_.end_s = now_;
  std::stable_sort(timeline_.events.begin(), timeline_.events.end(),
                   [](const Event& a, const Event& b) { return a.begin_s < b.begin_s; });
  return std::move(timeline_);
}

void StepSimulator::micro_step(int64_t number, bool reduces) {
  micro_step_ = number;
  reduces_ = reduces;
  order_ = std::move(trace_);
  trace_.clear();
  cursor_ = 0;
  for (auto& state : states_) state.num_gradients = 0;
  next_launch_ = 0;
  phase_ = Phase::kForward;
  forward(0);
  if (!settings_.training) {
    release_all(Idle::kLingering);
    return;
  }
  phase_ = Phase::kBackward;
  backward(0);
  end_round();
}

void StepSimulator::forward(int index) {
  const Scope& scope = scopes_[index];
  for (const int u : scope.units) acquire(u);
  for (const int child : scope.children) forward(child);
  module_ = scope.module;
  workspace_ += scope.cost.forward_workspace_bytes;
  mark(-1);
  compute(scope, scope.cost.forward);
  workspace_ -= scope.cost.forward_workspace_bytes;
  if (settings_.training) activations_ += scope.cost.saved_bytes;
  mark(-1);
  for (const int u : scope.units) release(u);
}

void StepSimulator::backward(int index) {
  const Scope& scope = scopes_[index];
  if (!scope.output_has_gradient) {
    activations_ -= scope.cost.saved_bytes;
    return;
  }
  for (const int u : scope.units) acquire(u);
  module_ = scope.module;
  if (settings_.shards_gradients()) {
    for (const auto& [u, count] : scope.gradients) {
      if (states_[u].bucket) continue;
      states_[u].bucket = true;
      slots_ += units_[u].bucket_slot;
      mark(u);
    }
  }
  const int64_t workspace = scope.cost.backward_workspace_bytes + scope.cost.left_by_backward_bytes;
  workspace_ += workspace;
  mark(-1);
  double moved = 0;  // into the bucket
  for (const auto& [u, count] : scope.gradients) {
    moved += static_cast<double>(units_[u].accumulate_bytes * count / units_[u].num_trainable);
  }
  compute(scope, scope.cost.backward, moved);
  workspace_ -= workspace;
  activations_ += scope.cost.left_by_backward_bytes - scope.cost.saved_bytes;
  left_by_backward_ += scope.cost.left_by_backward_bytes;
  take_gradients(scope);
  for (size_t i = scope.children.size(); i-- > 0;) backward(scope.children[i]);
  if (scope.input_has_gradient) {
    for (const int u : scope.units) release(u);
  } else {
    open_until_end_.insert(open_until_end_.end(), scope.units.begin(), scope.units.end());
  }
}

void StepSimulator::acquire(int u) {
  UnitState& state = states_[u];
  if (state.holds++ > 0 || !settings_.shards_parameters()) return;
  const bool lingered = state.idle == Idle::kLingering;
  state.idle = Idle::kNo;
  release_all(Idle::kLingering);
  start_gather(u);
  if (!lingered) follow_order(u);
  now_ = std::max(now_, state.gathered_at);
}

void StepSimulator::start_gather(int u) {
  UnitState& state = states_[u];
  if (state.gathered || units_[u].num_gathers == 0) return;
  state.gathered = true;
  slots_ += units_[u].gather_slot;
  mark(u);
  state.gathered_at = communicate(Activity::kGather, Lane::kGather, u, Collective::kAllGather, units_[u].num_gathers,
                                  units_[u].full_bytes);
}

void StepSimulator::follow_order(int u) {
  trace_.push_back(u);
  if (cursor_ >= order_.size() || order_[cursor_] != u) return;
  ++cursor_;
  if (!settings_.overlap || cursor_ >= order_.size()) return;
  size_t ahead = cursor_;
  while (ahead < order_.size() && states_[order_[ahead]].idle == Idle::kRetained) ++ahead;
  if (ahead == order_.size()) return;
  const int next = order_[ahead];
  if (states_[next].holds > 0 || states_[next].idle != Idle::kNo) return;
  start_gather(next);
  states_[next].idle = Idle::kPrefetched;
}

void StepSimulator::release(int u) {
  UnitState& state = states_[u];
  HYDROFOIL_ASSERT(state.holds > 0, units_[u].name);
  if (--state.holds > 0 || !settings_.shards_parameters()) return;
  if (stays(u)) {
    state.idle = Idle::kRetained;
  } else if (state.num_scopes > 1) {
    state.idle = Idle::kLingering;
  } else {
    release_now(u);
  }
}

void StepSimulator::release_now(int u) {
  UnitState& state = states_[u];
  state.idle = Idle::kNo;
  if (!state.gathered) return;
  state.gathered = false;
  slots_ -= units_[u].gather_slot;
  mark(u);
}

void StepSimulator::release_all(Idle idle) {
  for (size_t u = 0; u < states_.size(); ++u) {
    if (states_[u].idle == idle) release_now(static_cast<int>(u));
  }
}

int64_t StepSimulator::kept_gathered_bytes() const {
  int64_t bytes = 0;
  for (size_t u = 0; u < units_.size(); ++u) bytes += states_[u].retain ? units_[u].full_bytes : 0;
  return bytes;
}

bool StepSimulator::stays(int u) const {
  if (!states_[u].retain || !settings_.training) return false;
  return phase_ != Phase::kBackward || micro_step_ < settings_.accumulation_steps - 1;
}

void StepSimulator::take_gradients(const Scope& scope) {
  for (const auto& [u, count] : scope.gradients) {
    states_[u].num_gradients += count;
    if (!order_recorded_ && states_[u].num_gradients == units_[u].num_trainable) reduce_order_.push_back(u);
  }
  if (reduces_) launch_ready();
}

// The last of all waits for the end of the round, as in zero::GradientReducer.
void StepSimulator::launch_ready() {
  const auto reduced =
      std::count_if(units_.begin(), units_.end(), [](const auto& unit) { return unit.num_trainable > 0; });
  for (; next_launch_ < reduce_order_.size() && static_cast<int64_t>(next_launch_) + 1 < reduced; ++next_launch_) {
    const int u = reduce_order_[next_launch_];
    if (states_[u].num_gradients < units_[u].num_trainable) return;
    launch(u);
  }
}

void StepSimulator::launch(int u) {
  settle(kMaxInFlight - 1);
  workspace_ += units_[u].cast_bytes;
  if (settings_.passing_gradients && settings_.shards_gradients() && !states_[u].gradient_shard) {
    states_[u].gradient_shard = true;
    gradients_ += units_[u].states.gradients;
  }
  mark(u);
  states_[u].reduced_at = now_;
  if (units_[u].num_reductions > 0) {
    const auto kind = settings_.shards_optimizer_states() ? Collective::kReduceScatter : Collective::kAllReduce;
    states_[u].reduced_at =
        communicate(Activity::kReduce, Lane::kReduce, u, kind, units_[u].num_reductions, units_[u].reduce_bytes);
  }
  in_flight_.push_back(u);
  if (!settings_.overlap) settle(0);
}

void StepSimulator::settle(size_t max_in_flight) {
  while (in_flight_.size() > max_in_flight) {
    const int u = in_flight_.front();
    in_flight_.pop_front();
    now_ = std::max(now_, states_[u].reduced_at);
    workspace_ -= units_[u].cast_bytes;
    if (states_[u].bucket) slots_ -= units_[u].bucket_slot;
    states_[u].bucket = false;
    mark(u);
  }
}

void StepSimulator::end_round() {
  activations_ -= left_by_backward_;
  left_by_backward_ = 0;
  if (reduces_) {
    for (; next_launch_ < reduce_order_.size(); ++next_launch_) launch(reduce_order_[next_launch_]);
    settle(0);
  }
  for (const int u : open_until_end_) release(u);
  open_until_end_.clear();
  release_all(Idle::kLingering);
  order_recorded_ = true;
}

void StepSimulator::drop_gradients() {
  gradients_ = 0;
  for (auto& state : states_) state.gradient_shard = false;
}

// Summary, update of the owned slices, and all-gathers of what they changed.
void StepSimulator::update() {
  phase_ = Phase::kStep;
  module_ = -1;
  release_all(Idle::kRetained);
  for (size_t u = 0; u < units_.size(); ++u) {
    if (units_[u].update_bytes == 0) continue;
    const double seconds = static_cast<double>(units_[u].update_bytes) / roofs_.memory_bytes_per_s;
    timeline_.events.push_back({.activity = Activity::kUpdate,
                                .lane = Lane::kCompute,
                                .phase = phase_,
                                .micro_step = micro_step_,
                                .unit = static_cast<int>(u),
                                .begin_s = now_,
                                .end_s = now_ + seconds,
                                .bytes = units_[u].update_bytes});
    now_ += seconds;
  }
  double published_at = now_;
  for (size_t u = 0; u < units_.size(); ++u) {
    if (units_[u].num_publishes == 0) continue;
    published_at = communicate(Activity::kPublish, Lane::kGather, static_cast<int>(u), Collective::kAllGather,
                               units_[u].num_publishes, units_[u].publish_bytes);
  }
  now_ = std::max(now_, published_at);
  drop_gradients();
  mark(-1);
}

void StepSimulator::compute(const Scope& scope, const ComputeWork& work, double moved_bytes) {
  const bool is_16_bit = settings_.model_dtype && *settings_.model_dtype != c10::ScalarType::Float;
  const double operators = is_16_bit ? roofs_.bf16_operator_bytes_per_s : roofs_.fp32_operator_bytes_per_s;
  const double products = is_16_bit ? roofs_.bf16_flops : roofs_.fp32_flops;
  const double attention = is_16_bit ? roofs_.bf16_attention_flops : roofs_.fp32_attention_flops;
  const double seconds = work.product_flops / products + work.attention_flops / (attention > 0 ? attention : products) +
                         work.traffic_bytes / (operators > 0 ? operators : roofs_.memory_bytes_per_s) +
                         moved_bytes / roofs_.memory_bytes_per_s + work.num_calls * roofs_.call_s;
  if (seconds <= 0) return;
  timeline_.events.push_back({.activity = Activity::kCompute,
                              .lane = Lane::kCompute,
                              .phase = phase_,
                              .micro_step = micro_step_,
                              .unit = scope.units.empty() ? -1 : scope.units[0],
                              .module = scope.module,
                              .begin_s = now_,
                              .end_s = now_ + seconds});
  now_ += seconds;
}

// Returns when it ends. Where collectives take the compute's cores, the compute waits for them.
double StepSimulator::communicate(Activity activity, Lane lane, int u, Collective kind, int num_collectives,
                                  int64_t bytes) {
  double& free = lane_free_[lane];
  const double begin = std::max(now_, free);
  const double latency = collective_seconds(kind, 0, settings_, roofs_) * (num_collectives - 1);
  const double end = begin + collective_seconds(kind, bytes, settings_, roofs_) + latency;
  timeline_.events.push_back({.activity = activity,
                              .lane = lane,
                              .phase = phase_,
                              .micro_step = micro_step_,
                              .unit = u,
                              .begin_s = begin,
                              .end_s = end,
                              .bytes = bytes});
  auto& traffic = traffic_[{activity, kind}];
  traffic.count += num_collectives * repeats_;
  traffic.bytes += bytes * repeats_;
  free = end;
  if (!roofs_.overlaps) now_ = std::max(now_, end);
  return end;
}

void StepSimulator::mark(int u) {
  timeline_.memory.push_back({.time_s = now_,
                              .slot_bytes = slots_,
                              .activation_bytes = activations_,
                              .gradient_bytes = gradients_,
                              .workspace_bytes = workspace_,
                              .phase = phase_,
                              .micro_step = micro_step_,
                              .unit = u,
                              .module = module_});
}

}  // namespace hydrofoil::plan::detail
