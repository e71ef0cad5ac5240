#pragma once

#include <string>
#include <vector>

#include "hydrofoil/zero/unit_planner.h"
#include "hydrofoil/zero/zero_options.h"

namespace hydrofoil::zero {

// Marks the modules that stay one unit: those of `names` (hydrofoil.unit_names), and those that `leaves` says.
//
// A class matches a type name that equals it, or, where one of the two has no package or namespace, its last part: a
// model's "Moe" is "package.file.Moe" too. Returns a warning that names what of `leaves` matches nothing; empty where
// all does, and of the default classes. Throws InvalidArgument for one of `names` that no module has, and for classes
// other than the default where modules have no type name.
[[nodiscard]] std::string mark_whole_modules(std::vector<ModuleNode>& modules, const std::vector<std::string>& names,
                                             const LeafModuleOptions& leaves);

}  // namespace hydrofoil::zero
