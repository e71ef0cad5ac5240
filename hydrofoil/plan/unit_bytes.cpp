#include "hydrofoil/plan/unit_bytes.h"

#include <algorithm>
#include <map>
#include <utility>

#include "hydrofoil/memory/alignment.h"
#include "hydrofoil/zero/flat_layout.h"

namespace hydrofoil::plan {
namespace {

using memory::checked_multiply;

constexpr const char* kFunction = "plan";
constexpr int64_t kMasterBytes = 4;  // masters are fp32

int64_t bytes_of(int64_t numel, c10::ScalarType dtype) {
  return checked_multiply(numel, element_bytes(dtype), kFunction);
}

// Bytes that an arena slot takes.
int64_t slot_of(int64_t num_bytes, const Settings& settings) {
  return std::max(memory::round_up(num_bytes, settings.alignment_bytes), settings.alignment_bytes);
}

void add_trainable(const zero::FlatLayout& layout, c10::ScalarType dtype, const Settings& settings, UnitBytes& unit) {
  const bool owns_slice = settings.shards_optimizer_states();
  const int64_t owned = owns_slice ? layout.shard_numel : layout.padded_numel;
  const auto accumulation = settings.accumulation_dtype;
  const bool has_master = dtype != c10::ScalarType::Float;
  const int64_t state_bytes = bytes_of(settings.num_optimizer_states, settings.optimizer_state_dtype);
  unit.states.gradients += bytes_of(settings.shards_gradients() ? owned : layout.padded_numel, accumulation);
  if (has_master) unit.states.masters += checked_multiply(owned, kMasterBytes, kFunction);
  unit.states.optimizer_states += checked_multiply(owned, state_bytes, kFunction);
  const bool narrow = settings.narrow_buckets && settings.shards_gradients() && element_bytes(dtype) == 2;
  const auto bucket = narrow ? dtype : accumulation;
  if (settings.shards_gradients()) unit.bucket_slot += slot_of(bytes_of(layout.padded_numel, bucket), settings);
  unit.owned_trainable += owned;
  // Reads the gradient twice (summary, update); reads and writes master and states; writes the 16-bit copy.
  unit.update_bytes += bytes_of(2 * owned, accumulation) + 2 * owned * (kMasterBytes + state_bytes);
  if (has_master) unit.update_bytes += bytes_of(owned, dtype);
  const int64_t bucket_passes = settings.accumulation_steps > 1 ? 2 : 1;  // added, or only copied
  unit.accumulate_bytes += bytes_of(layout.padded_numel, dtype) + bucket_passes * bytes_of(layout.padded_numel, bucket);
  if (settings.world_size == 1) return;
  const auto reduced = settings.communication_dtype.value_or(bucket);
  unit.reduce_bytes += bytes_of(layout.padded_numel, reduced);
  ++unit.num_reductions;
  if (reduced != bucket) unit.cast_bytes += bytes_of(layout.padded_numel, reduced);
  if (owns_slice && !settings.shards_parameters() && !settings.shares_parameters) {
    unit.publish_bytes += bytes_of(layout.padded_numel, dtype);
    ++unit.num_publishes;
  }
}

// A parameter as far as a unit's bytes depend on it.
struct Shape {
  int64_t numel;
  c10::ScalarType dtype;
  bool trainable;
  bool operator<(const Shape& other) const {
    return std::tie(numel, dtype, trainable) < std::tie(other.numel, other.dtype, other.trainable);
  }
};

UnitBytes bytes_of_shapes(const std::vector<Shape>& shapes, const Settings& settings) {
  UnitBytes unit;
  std::map<std::pair<c10::ScalarType, bool>, std::vector<int64_t>> groups;
  for (const auto& shape : shapes) {
    groups[{shape.dtype, shape.trainable}].push_back(shape.numel);
    unit.numel += shape.numel;
    unit.num_trainable += shape.trainable ? 1 : 0;
  }
  for (const auto& [key, numels] : groups) {
    const auto [dtype, trainable] = key;
    const int64_t element = element_bytes(dtype);
    const bool shares = settings.shares_parameters && settings.shards_optimizer_states();
    const zero::FlatLayout layout = zero::layout_flat(numels, settings.world_size, settings.alignment_bytes / element,
                                                      shares ? memory::kPageBytes / element : 0);
    const int64_t full = bytes_of(layout.padded_numel, dtype);
    unit.full_bytes += full;
    unit.states.parameters += settings.shards_parameters() || shares ? bytes_of(layout.shard_numel, dtype) : full;
    if (settings.shards_parameters() && !shares) {
      unit.gather_slot += slot_of(full, settings);
      ++unit.num_gathers;
    }
    if (trainable) add_trainable(layout, dtype, settings, unit);
  }
  return unit;
}

}  // namespace

StateBytes& StateBytes::operator+=(const StateBytes& other) {
  parameters += other.parameters;
  gradients += other.gradients;
  masters += other.masters;
  optimizer_states += other.optimizer_states;
  return *this;
}

c10::ScalarType stored_dtype(const ParameterSpec& parameter, const Settings& settings) {
  return settings.model_dtype && is_floating(parameter.dtype) ? *settings.model_dtype : parameter.dtype;
}

zero::UnitLayout layout_units(const ModelSpec& spec, const Settings& settings) {
  std::vector<zero::ParameterSize> sizes;
  for (const auto& parameter : spec.parameters) {
    sizes.push_back({parameter.numel, element_bytes(stored_dtype(parameter, settings))});
  }
  return zero::plan_units(spec.modules, sizes, settings.unit_min_bytes);
}

std::vector<UnitBytes> unit_bytes(const ModelSpec& spec, const zero::UnitLayout& layout, const Settings& settings) {
  std::map<std::vector<Shape>, UnitBytes> known;
  std::vector<UnitBytes> result;
  for (const auto& unit : layout.units) {
    std::vector<Shape> shapes;
    for (const int64_t p : unit.parameters) {
      const auto& parameter = spec.parameters[p];
      shapes.push_back({parameter.numel, stored_dtype(parameter, settings), settings.training && parameter.trainable});
    }
    auto found = known.find(shapes);
    if (found == known.end()) found = known.emplace(shapes, bytes_of_shapes(shapes, settings)).first;
    result.push_back(found->second);
    result.back().name = unit.name.empty() ? "(root)" : unit.name;
  }
  return result;
}

}  // namespace hydrofoil::plan
