#include "hydrofoil/plan/roofs_json.h"

#include <array>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/base/nearest.h"
#include "hydrofoil/storage/strict_json.h"

namespace hydrofoil::plan {
namespace {

constexpr int kMaxDepth = 4;
constexpr std::array<std::pair<const char*, double Roofs::*>, 12> kNumbers = {
    {{"fp32_flops", &Roofs::fp32_flops},
     {"bf16_flops", &Roofs::bf16_flops},
     {"fp32_attention_flops", &Roofs::fp32_attention_flops},
     {"bf16_attention_flops", &Roofs::bf16_attention_flops},
     {"memory_bytes_per_s", &Roofs::memory_bytes_per_s},
     {"fp32_operator_bytes_per_s", &Roofs::fp32_operator_bytes_per_s},
     {"bf16_operator_bytes_per_s", &Roofs::bf16_operator_bytes_per_s},
     {"call_s", &Roofs::call_s},
     {"host_latency_s", &Roofs::host_latency_s},
     {"host_bytes_per_s", &Roofs::host_bytes_per_s},
     {"network_latency_s", &Roofs::network_latency_s},
     {"network_bytes_per_s", &Roofs::network_bytes_per_s}}};

}  // namespace

Roofs parse_roofs(std::string_view text, const std::string& file) {
  const nlohmann::json json = storage::parse_strict_json(text, "plan", file, kMaxDepth);
  HYDROFOIL_CHECK_ARG(json.is_object(), "plan", file, ": got ", json.type_name(), ", expected an object of roofs");
  std::vector<std::string> names = {"overlaps"};
  for (const auto& [name, field] : kNumbers) names.emplace_back(name);
  Roofs roofs;
  for (const auto& [key, value] : json.items()) {
    if (key == "overlaps") {
      HYDROFOIL_CHECK_ARG(value.is_boolean(), "plan", file, ": overlaps: got ", value.dump(),
                          ", expected true or false");
      roofs.overlaps = value.get<bool>();
      continue;
    }
    bool known = false;
    for (const auto& [name, field] : kNumbers) {
      if (key != name) continue;
      HYDROFOIL_CHECK_ARG(value.is_number(), "plan", file, ": ", key, ": got ", value.dump(), ", expected a number");
      roofs.*field = value.get<double>();
      known = true;
    }
    HYDROFOIL_CHECK_ARG(known, "plan", file, ": unknown roof ", key, "; the nearest is ", nearest_name(key, names));
  }
  roofs.validate();
  return roofs;
}

}  // namespace hydrofoil::plan
