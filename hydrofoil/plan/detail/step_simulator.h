#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <utility>
#include <vector>

#include "hydrofoil/plan/collective_time.h"
#include "hydrofoil/plan/model_spec.h"
#include "hydrofoil/plan/settings.h"
#include "hydrofoil/plan/timeline.h"
#include "hydrofoil/plan/unit_bytes.h"

namespace hydrofoil::plan::detail {

// Plays one optimizer step of one rank: which unit is gathered, reduced and released when, with the rules of
// zero::ParameterGatherer and zero::GradientReducer. Modules are called in the order of the tree, every parameter gets
// a gradient, and all ranks do the same.
class StepSimulator {
 public:
  StepSimulator(const ModelSpec& spec, const zero::UnitLayout& layout, const std::vector<UnitBytes>& units,
                const Settings& settings, const Roofs& roofs);

  // A steady step: the order of gathers is known, so the next unit is prefetched.
  [[nodiscard]] Timeline run();

  // Of units that stay gathered until the step.
  [[nodiscard]] int64_t kept_gathered_bytes() const;

  struct Traffic {
    int64_t count = 0;
    int64_t bytes = 0;
  };
  // Of the last run(): collectives of the whole step by (activity, kind).
  [[nodiscard]] const std::map<std::pair<Activity, Collective>, Traffic>& traffic() const { return traffic_; }

 private:
  enum class Idle { kNo, kPrefetched, kLingering, kRetained };
  struct UnitState {
    int holds = 0;
    Idle idle = Idle::kNo;
    bool gathered = false;
    double gathered_at = 0;
    bool bucket = false;
    bool gradient_shard = false;
    int64_t num_gradients = 0;  // of this round
    double reduced_at = 0;
    int num_scopes = 0;
    bool retain = false;
  };
  // One module whose call needs units, and the calls inside it.
  struct Scope {
    int module = -1;
    std::vector<int> units;
    std::vector<std::pair<int, int64_t>> gradients;  // (unit, how many) that its backward completes
    std::vector<int> children;
    ModuleCost cost;
    bool output_has_gradient = false;
    bool input_has_gradient = false;  // its backward ends with the gradients of its inputs
  };

  void build_scopes();
  void find_gradients(int scope, bool& any_trainable);
  void micro_step(int64_t number, bool reduces);
  void forward(int scope);
  void backward(int scope);
  void update();

  void acquire(int u);
  void start_gather(int u);
  void release(int u);
  void release_now(int u);
  void release_all(Idle idle);
  [[nodiscard]] bool stays(int u) const;
  void follow_order(int u);

  void take_gradients(const Scope& scope);
  void launch_ready();
  void launch(int u);
  void settle(size_t max_in_flight);
  void end_round();
  void drop_gradients();

  // `moved_bytes`: that a plain copy or sum reads and writes beside the operators.
  void compute(const Scope& scope, const ComputeWork& work, double moved_bytes = 0);
  double communicate(Activity activity, Lane lane, int u, Collective kind, int num_collectives, int64_t bytes);
  void mark(int u);

  const ModelSpec& spec_;
  const zero::UnitLayout& layout_;
  const std::vector<UnitBytes>& units_;
  const Settings& settings_;
  const Roofs& roofs_;
  std::vector<Scope> scopes_;
  std::vector<UnitState> states_;
  std::vector<int> order_;  // of gathers, from the micro step before
  std::vector<int> trace_;
  size_t cursor_ = 0;
  std::vector<int> open_until_end_;  // units whose backward the end of the round closes
  std::vector<int> reduce_order_;    // in which gradients of units are complete
  bool order_recorded_ = false;
  size_t next_launch_ = 0;
  std::deque<int> in_flight_;
  bool reduces_ = false;

  Timeline timeline_;
  std::map<std::pair<Activity, Collective>, Traffic> traffic_;
  int64_t repeats_ = 1;  // micro steps that the running one stands for
  double now_ = 0;
  std::map<Lane, double> lane_free_;
  Phase phase_ = Phase::kForward;
  int64_t micro_step_ = 0;
  int module_ = -1;
  int64_t slots_ = 0;
  int64_t activations_ = 0;
  int64_t gradients_ = 0;
  int64_t left_by_backward_ = 0;
  int64_t workspace_ = 0;
};

}  // namespace hydrofoil::plan::detail
