#include "hydrofoil/engine/groups_json.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "hydrofoil/base/error.h"
#include "hydrofoil/storage/strict_json.h"

namespace hydrofoil::engine {
namespace {

using optim::Hyperparameters;

struct NumberField {
  const char* name;
  double Hyperparameters::*member;
};
struct FlagField {
  const char* name;
  bool Hyperparameters::*member;
};
constexpr NumberField kNumbers[] = {{"lr", &Hyperparameters::lr},
                                    {"eps", &Hyperparameters::eps},
                                    {"weight_decay", &Hyperparameters::weight_decay},
                                    {"momentum", &Hyperparameters::momentum},
                                    {"dampening", &Hyperparameters::dampening}};
constexpr FlagField kFlags[] = {{"nesterov", &Hyperparameters::nesterov},
                                {"bias_correction", &Hyperparameters::bias_correction}};

double number(const nlohmann::json& value, const std::string& name) {
  HYDROFOIL_CHECK_ARG(value.is_number(), "load_checkpoint", "param_groups: ", name, ": got ", value.dump(),
                      ", expected a number");
  return value.get<double>();
}

}  // namespace

std::string groups_to_json(optim::OptimizerKind kind, const std::vector<Hyperparameters>& groups) {
  nlohmann::json result = nlohmann::json::array();
  const std::vector<std::string>& names = optim::hyperparameter_names(kind);
  const auto has = [&](const char* name) { return std::find(names.begin(), names.end(), name) != names.end(); };
  for (const Hyperparameters& group : groups) {
    nlohmann::json values = nlohmann::json::object();
    for (const auto& field : kNumbers) {
      if (has(field.name)) values[field.name] = group.*field.member;
    }
    for (const auto& field : kFlags) {
      if (has(field.name)) values[field.name] = group.*field.member;
    }
    if (has("betas")) values["betas"] = {group.beta1, group.beta2};
    result.push_back(std::move(values));
  }
  return result.dump();
}

void groups_from_json(std::string_view text, std::vector<Hyperparameters>& groups) {
  const nlohmann::json saved = storage::parse_strict_json(text, "load_checkpoint", "param_groups", 8);
  HYDROFOIL_CHECK_ARG(saved.is_array() && saved.size() == groups.size(), "load_checkpoint", "got ",
                      saved.is_array() ? saved.size() : 0, " parameter groups in the checkpoint, the optimizer has ",
                      groups.size());
  for (size_t g = 0; g < groups.size(); ++g) {
    HYDROFOIL_CHECK_ARG(saved[g].is_object(), "load_checkpoint", "param_groups: group ", g, " is no object");
    for (const auto& field : kNumbers) {
      if (saved[g].contains(field.name)) groups[g].*field.member = number(saved[g][field.name], field.name);
    }
    for (const auto& field : kFlags) {
      if (!saved[g].contains(field.name)) continue;
      const nlohmann::json& value = saved[g][field.name];
      HYDROFOIL_CHECK_ARG(value.is_boolean(), "load_checkpoint", "param_groups: ", field.name, ": got ", value.dump(),
                          ", expected true or false");
      groups[g].*field.member = value.get<bool>();
    }
    if (!saved[g].contains("betas")) continue;
    const nlohmann::json& betas = saved[g]["betas"];
    HYDROFOIL_CHECK_ARG(betas.is_array() && betas.size() == 2, "load_checkpoint", "param_groups: betas: got ",
                        betas.dump(), ", expected two numbers");
    groups[g].beta1 = number(betas[0], "betas");
    groups[g].beta2 = number(betas[1], "betas");
  }
}

}  // namespace hydrofoil::engine
