#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hydrofoil/plan/model_spec.h"
#include "hydrofoil/plan/settings.h"

namespace hydrofoil::plan {

// One stage at one world size.
struct ScalingPoint {
  int stage = 0;
  int world_size = 0;
  double step_seconds = 0.0;
  double compute_seconds = 0.0;        // of forward and backward, alike at every world size
  double communication_seconds = 0.0;  // of all collectives, hidden behind compute or not
  double efficiency = 0.0;             // compute_seconds / step_seconds
  int64_t num_collectives = 0;
  double moved_bytes = 0.0;  // that a rank sends
  int64_t state_bytes = 0;   // of a rank
  int64_t peak_bytes = 0;
};

struct Scaling {
  Roofs roofs;
  int ranks_per_node = 1;
  std::vector<ScalingPoint> points;  // world sizes ascending, in each of them the stages
};

// Where nothing overlaps and nothing is padded, a model of P elements in U units (of one dtype each), with b bytes a
// parameter and g a reduced gradient element, communicates in a step of A micro steps, with collective_seconds'
// formulas:
//   stage 1: R + G (A > 1: the gradients are reduced once);  stage 2: A R + G;  stage 3: A (R + 2 G)
//   G = U latencies of an all_gather + (N - 1) / N b P / bandwidth;  R the same of reduce_scatters with g
// (Rajbhandari et al., "ZeRO: memory optimizations toward training trillion parameter models", SC 2020, section 7).
// Units of several modules may save the second gather, since they stay gathered from forward to backward.
//
// Weak scaling of ZeRO 1, 2 and 3 (each rank keeps its micro batches) at 2, 4, ... ranks up to `max_ranks`, each point
// a plan of its own over the links of `roofs`. `settings` says all but stage, world size and nodes; ranks up to
// `ranks_per_node` share a node. Nothing is shared by mapping it: on one host the runtime may do better. Throws
// InvalidArgument as make_plan does, and where max_ranks < 2, ranks_per_node is no power of two, or the model has no
// costs.
[[nodiscard]] Scaling plan_scaling(const ModelSpec& spec, const Settings& settings, const Roofs& roofs, int max_ranks,
                                   int ranks_per_node = 1);

// A table for people, and JSON for programs.
[[nodiscard]] std::string to_text(const Scaling& scaling);
[[nodiscard]] std::string to_json(const Scaling& scaling);

}  // namespace hydrofoil::plan
