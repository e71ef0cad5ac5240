#include "hydrofoil/zero/unit_planner.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "hydrofoil/base/error.h"

namespace hydrofoil::zero {
namespace {

void check_tree(const std::vector<ModuleNode>& modules, size_t num_parameters) {
  HYDROFOIL_CHECK_ARG(!modules.empty() && modules[0].parent == -1, "plan_units", "the first module must be the root");
  for (size_t m = 1; m < modules.size(); ++m) {
    const int parent = modules[m].parent;
    HYDROFOIL_CHECK_ARG(parent >= 0 && parent < static_cast<int>(m), "plan_units", "module ", modules[m].path,
                        ": got parent ", parent, ", expected a module that stands before it");
  }
  std::vector<bool> held(num_parameters, false);
  for (const auto& module : modules) {
    for (const int64_t p : module.parameters) {
      HYDROFOIL_CHECK_ARG(p >= 0 && p < static_cast<int64_t>(num_parameters), "plan_units", "module ", module.path,
                          ": got parameter index ", p, ", expected less than ", num_parameters);
      held[p] = true;
    }
  }
  for (size_t p = 0; p < num_parameters; ++p) {
    HYDROFOIL_CHECK_ARG(held[p], "plan_units", "parameter ", p, " is held by no module");
  }
}

// For each module the block that it lies in (itself, if it is one), or -1.
std::vector<int> find_blocks(const std::vector<ModuleNode>& modules) {
  std::vector<bool> has_parameters(modules.size());
  for (size_t m = modules.size(); m-- > 0;) {
    if (!modules[m].parameters.empty()) has_parameters[m] = true;
    if (has_parameters[m] && modules[m].parent >= 0) has_parameters[modules[m].parent] = true;
  }
  std::map<std::pair<int, std::string>, int> num_siblings;
  for (size_t m = 0; m < modules.size(); ++m) {
    if (has_parameters[m]) ++num_siblings[{modules[m].parent, modules[m].type_name}];
  }
  std::vector<int> block(modules.size(), -1);
  for (size_t m = 0; m < modules.size(); ++m) {
    const auto& module = modules[m];
    if (module.parent >= 0 && block[module.parent] >= 0) {
      block[m] = block[module.parent];
      continue;
    }
    const bool repeated =
        module.parent >= 0 && modules[module.parent].is_list && num_siblings[{module.parent, module.type_name}] >= 2;
    if (has_parameters[m] && (repeated || module.keep_whole)) block[m] = static_cast<int>(m);
  }
  return block;
}

}  // namespace

UnitLayout plan_units(const std::vector<ModuleNode>& modules, const std::vector<ParameterSize>& parameters,
                      int64_t unit_min_bytes) {
  check_tree(modules, parameters.size());
  const std::vector<int> block = find_blocks(modules);

  UnitLayout layout;
  std::vector<int> unit_of(parameters.size(), -1);
  std::map<int, int> unit_of_boundary;  // module -> unit that its first own parameter opened or joined
  int open_boundary = -1;
  for (size_t m = 0; m < modules.size(); ++m) {
    const int boundary = block[m] >= 0 ? block[m] : static_cast<int>(m);
    for (const int64_t p : modules[m].parameters) {
      if (unit_of[p] >= 0) continue;
      if (!unit_of_boundary.count(boundary)) {
        const bool joins = open_boundary >= 0 && layout.units.back().num_bytes < unit_min_bytes;
        if (!joins) layout.units.push_back({modules[boundary].path, {}, 0});
        unit_of_boundary[boundary] = static_cast<int>(layout.units.size()) - 1;
        open_boundary = boundary;
      }
      const int unit = unit_of_boundary[boundary];
      unit_of[p] = unit;
      layout.units[unit].parameters.push_back(p);
      layout.units[unit].num_bytes += parameters[p].numel * parameters[p].element_bytes;
    }
  }

  std::map<int, std::vector<int>> units_of_scope;
  units_of_scope[0];
  for (size_t m = 0; m < modules.size(); ++m) {
    const int boundary = block[m] >= 0 ? block[m] : static_cast<int>(m);
    for (const int64_t p : modules[m].parameters) {
      auto& units = units_of_scope[boundary];
      if (std::find(units.begin(), units.end(), unit_of[p]) == units.end()) units.push_back(unit_of[p]);
    }
  }
  for (auto& [module, units] : units_of_scope) layout.scopes.push_back({module, std::move(units)});
  return layout;
}

std::vector<bool> units_to_keep(const std::vector<int64_t>& gathered_bytes, int64_t budget_bytes) {
  std::vector<size_t> order(gathered_bytes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return gathered_bytes[a] < gathered_bytes[b]; });
  std::vector<bool> keep(gathered_bytes.size(), false);
  for (const size_t u : order) {
    if (gathered_bytes[u] == 0) continue;
    if (gathered_bytes[u] > budget_bytes) break;
    budget_bytes -= gathered_bytes[u];
    keep[u] = true;
  }
  return keep;
}

}  // namespace hydrofoil::zero
