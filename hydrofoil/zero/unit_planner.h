#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hydrofoil::zero {

// One module of the tree, as its owner describes it; parents stand before their children.
struct ModuleNode {
  std::string path;                 // "" for the root, else "model.layers.3"
  std::string type_name;            // class name; siblings of one type are repeated blocks
  int parent = -1;                  // index of the parent, -1 for the root
  bool is_list = false;             // only holds its children (ModuleList, ModuleDict, Sequential)
  bool keep_whole = false;          // the user wants the whole subtree as one unit
  std::vector<int64_t> parameters;  // indices of the parameters that it holds itself (shared ones too)
};

struct ParameterSize {
  int64_t numel = 0;
  int64_t element_bytes = 0;
};

// Parameters that are gathered and reduced together.
struct UnitPlan {
  std::string name;  // path of its first module
  std::vector<int64_t> parameters;
  int64_t num_bytes = 0;
};

// A module whose call needs units: they are gathered on its way in and released on its way out.
struct ScopePlan {
  int module = -1;
  std::vector<int> units;  // its own first, then those that own parameters it shares
};

struct UnitLayout {
  std::vector<UnitPlan> units;
  std::vector<ScopePlan> scopes;  // in tree order; the root always has one
};

// Divides the parameters into units.
//
// Each repeated block (a child of a list that has a sibling of its type) is a unit, and each module that the user keeps
// whole; each other module that holds parameters itself is one. Neighbours merge until they hold `unit_min_bytes`. A
// parameter belongs to the first module that holds it. Throws InvalidArgument for a tree that is none, and for
// parameter indices out of range or held by no module.
[[nodiscard]] UnitLayout plan_units(const std::vector<ModuleNode>& modules,
                                    const std::vector<ParameterSize>& parameters, int64_t unit_min_bytes);

// Bytes of gathered units that may stay, where the leanest rank has `free_bytes`: half, the rest is for what the next
// steps bring.
[[nodiscard]] inline int64_t budget_to_keep(int64_t free_bytes) { return free_bytes > 0 ? free_bytes / 2 : 0; }

// Which units stay gathered from their first use to the optimizer step, where `budget_bytes` of memory are to spare:
// the smallest first, for a gather costs a latency whatever its size, while the sum of `gathered_bytes` fits. Units of
// 0 bytes are never gathered, and none of them.
[[nodiscard]] std::vector<bool> units_to_keep(const std::vector<int64_t>& gathered_bytes, int64_t budget_bytes);

}  // namespace hydrofoil::zero
