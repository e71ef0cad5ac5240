#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "hydrofoil/config/field.h"
#include "hydrofoil/config/resolver.h"

namespace hydrofoil::zero {

// Where a kind of state lives. On a CPU device kCpu is the device itself.
enum class OffloadDevice { kNone, kCpu, kNvme };

// `offload_param` or `offload_optimizer`.
struct OffloadOptions {
  OffloadDevice device = OffloadDevice::kNone;
  std::optional<std::string> nvme_path;  // directory of the swap files; only for kNvme
  double ratio = 1.0;                    // of the optimizer states; below 1 with stage 3 only
};

// What becomes of a unit that only some ranks run (stage 3; below it the others contribute zeros anyway).
enum class DivergentUnits { kError, kJoin };

// Modules that stay one unit whatever they contain (DeepSpeed's z3 leaf modules). What matches nothing is a warning,
// unless it is the default.
struct LeafModuleOptions {
  std::vector<std::string> classes = {"transformers.models.mixtral.modeling_mixtral.MixtralSparseMoeBlock",
                                      "transformers.models.qwen2_moe.modeling_qwen2_moe.Qwen2MoeSparseMoeBlock",
                                      "transformers.models.qwen3_moe.modeling_qwen3_moe.Qwen3MoeSparseMoeBlock"};
  std::vector<std::string> names;          // names in the module tree, as named_modules() gives them
  std::vector<std::string> name_suffixes;  // ends of such names
};

// The section `zero_optimization`.
struct ZeroOptions {
  int stage = 0;                     // 0: nothing, 1: optimizer states, 2: + gradients, 3: + parameters are sharded
  OffloadOptions offload_param;      // tier of the sharded parameters
  OffloadOptions offload_optimizer;  // tier of the optimizer states
  LeafModuleOptions leaf_module;
  DivergentUnits divergent_units = DivergentUnits::kError;
  bool gather_16bit_weights_on_model_save = false;  // stage 3: save_16bit_model may gather the full weights
  bool enable_sanity_checks = false;                // turns on the engine's debug checks

  // Throws InvalidArgument where a value lies outside its range or two contradict each other.
  void validate() const;
};

// The keys of `zero_optimization`, with their defaults from ZeroOptions.
[[nodiscard]] const config::Section& zero_section();

// Replaces the deprecated forms of the section by their present form, with one warning each: a boolean (true is stage
// 1), cpu_offload, cpu_offload_param, cpu_offload_use_pin_memory. Throws InvalidArgument where both an old and a new
// form are given.
[[nodiscard]] config::Value upgrade_zero_section(const config::Value& section, config::Resolver& resolver);

// Checks what depends on the device, and explains it in the resolver's table: offload to `cpu` needs a CPU device for
// now, `nvme` is not yet supported. Throws InvalidArgument that names the key.
void check_offload(const ZeroOptions& options, bool cpu_device, config::Resolver& resolver,
                   const config::Value* section);

}  // namespace hydrofoil::zero
