#include "hydrofoil/plan/model_spec.h"

#include <algorithm>

#include "hydrofoil/base/error.h"
#include "hydrofoil/base/nearest.h"

namespace hydrofoil::plan {

int64_t ModelSpec::num_parameters() const {
  int64_t total = 0;
  for (const auto& parameter : parameters) total += parameter.numel;
  return total;
}

int64_t ModelSpec::num_trainable() const {
  int64_t total = 0;
  for (const auto& parameter : parameters) total += parameter.trainable ? parameter.numel : 0;
  return total;
}

void keep_whole(ModelSpec& spec, const std::vector<std::string>& names) {
  for (const auto& name : names) {
    const auto found =
        std::find_if(spec.modules.begin(), spec.modules.end(), [&](const auto& m) { return m.path == name; });
    if (found != spec.modules.end()) {
      found->keep_whole = true;
      continue;
    }
    std::vector<std::string> paths;
    for (const auto& module : spec.modules) paths.push_back(module.path);
    HYDROFOIL_CHECK_ARG(false, "plan", "hydrofoil.unit_names: got ", name,
                        ", which no module of the model has; the nearest is ", nearest_name(name, paths));
  }
}

const char* dtype_text(c10::ScalarType dtype) {
  switch (dtype) {
    case c10::ScalarType::Float:
      return "float32";
    case c10::ScalarType::BFloat16:
      return "bfloat16";
    case c10::ScalarType::Half:
      return "float16";
    case c10::ScalarType::Double:
      return "float64";
    default:
      return c10::toString(dtype);
  }
}

}  // namespace hydrofoil::plan
