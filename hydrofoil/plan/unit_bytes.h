#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hydrofoil/plan/model_spec.h"
#include "hydrofoil/plan/settings.h"

namespace hydrofoil::plan {

// Permanent bytes of one rank, by kind of state, with all padding: what zero::Runtime::memory() reports.
struct StateBytes {
  int64_t parameters = 0;
  int64_t gradients = 0;
  int64_t masters = 0;  // fp32 copies of 16-bit parameters
  int64_t optimizer_states = 0;

  [[nodiscard]] int64_t total() const { return parameters + gradients + masters + optimizer_states; }
  StateBytes& operator+=(const StateBytes& other);
};

// One unit on one rank. The unit's gathers and reductions are one collective for each of its flat groups.
struct UnitBytes {
  std::string name;
  int64_t numel = 0;
  StateBytes states;
  int64_t full_bytes = 0;    // gathered, in the model dtype, padded
  int64_t gather_slot = 0;   // arena bytes while gathered; 0 where parameters are not sharded
  int64_t bucket_slot = 0;   // arena bytes of its transient gradient buckets; 0 where buckets are permanent
  int64_t reduce_bytes = 0;  // of what a reduction sends through
  int64_t cast_bytes = 0;    // of the copy in the communication dtype during a reduction
  int64_t publish_bytes = 0;
  int num_gathers = 0;  // collectives
  int num_reductions = 0;
  int num_publishes = 0;
  int64_t num_trainable = 0;     // parameters
  int64_t owned_trainable = 0;   // elements that this rank updates
  int64_t update_bytes = 0;      // that the optimizer reads and writes for them
  int64_t accumulate_bytes = 0;  // that a backward's gradients read and write on their way into the bucket
};

// Grouping, alignment and padding are those of zero::FlatGroup: by (dtype, trainable), one layout_flat each. Every rank
// has the same bytes. Units of equal shape cost the same and are computed once.
[[nodiscard]] std::vector<UnitBytes> unit_bytes(const ModelSpec& spec, const zero::UnitLayout& layout,
                                                const Settings& settings);

// The units that training has.
[[nodiscard]] zero::UnitLayout layout_units(const ModelSpec& spec, const Settings& settings);

// dtype that the engine stores a parameter in.
[[nodiscard]] c10::ScalarType stored_dtype(const ParameterSpec& parameter, const Settings& settings);

}  // namespace hydrofoil::plan
