#include "hydrofoil/zero/whole_modules.h"

#include <algorithm>
#include <string_view>

#include "hydrofoil/base/error.h"
#include "hydrofoil/base/nearest.h"

namespace hydrofoil::zero {
namespace {

std::string_view last_part(std::string_view type) {
  const size_t end = type.find_last_of(".:");
  return end == std::string_view::npos ? type : type.substr(end + 1);
}

bool is_class(const ModuleNode& module, std::string_view wanted) {
  const std::string_view type = module.type_name;
  const bool one_is_bare = last_part(type) == type || last_part(wanted) == wanted;
  return type == wanted || (one_is_bare && last_part(type) == last_part(wanted));
}

std::string nearest_path(const std::vector<ModuleNode>& modules, const std::string& name) {
  std::vector<std::string> paths;
  for (const auto& module : modules) paths.push_back(module.path);
  return nearest_name(name, paths);
}

// Marks for each of `wanted` the modules that match it; lists those that match none.
template <typename Matches>
std::string mark(std::vector<ModuleNode>& modules, const std::vector<std::string>& wanted, const char* what,
                 const Matches& matches) {
  std::string missing;
  for (const auto& each : wanted) {
    bool found = false;
    for (auto& module : modules) {
      if (!matches(module, each)) continue;
      module.keep_whole = found = true;
    }
    if (!found) missing += (missing.empty() ? std::string(what) + " " : ", ") + each;
  }
  return missing;
}

}  // namespace

std::string mark_whole_modules(std::vector<ModuleNode>& modules, const std::vector<std::string>& names,
                               const LeafModuleOptions& leaves) {
  const auto has_name = [](const ModuleNode& module, const std::string& name) { return module.path == name; };
  const auto ends_so = [](const ModuleNode& module, const std::string& end) { return module.path.ends_with(end); };
  for (const auto& name : names) {
    HYDROFOIL_CHECK_ARG(mark(modules, {name}, "", has_name).empty(), "initialize", "hydrofoil.unit_names: got ", name,
                        ", which no module of the model has; the nearest is ", nearest_path(modules, name));
  }
  const bool own_classes = leaves.classes != LeafModuleOptions().classes;
  const auto nameless = std::find_if(modules.begin(), modules.end(), [](const auto& m) { return m.type_name.empty(); });
  HYDROFOIL_CHECK_ARG(!own_classes || leaves.classes.empty() || nameless == modules.end(), "initialize",
                      "zero_optimization.leaf_module.classes: got ", leaves.classes.front(), ", but module ",
                      nameless->path, " has no type name; take names or name_suffixes");
  std::string missing = mark(modules, leaves.classes, "classes", is_class);
  if (!own_classes) missing.clear();
  for (const std::string& more : {mark(modules, leaves.names, "names", has_name),
                                  mark(modules, leaves.name_suffixes, "name_suffixes", ends_so)}) {
    missing += (missing.empty() || more.empty() ? "" : "; ") + more;
  }
  return missing.empty() ? "" : "zero_optimization.leaf_module: no module of the model matches " + missing;
}

}  // namespace hydrofoil::zero
