#include "hydrofoil/zero/model_tree.h"

#include <utility>

#include "hydrofoil/base/error.h"

namespace hydrofoil::zero {

std::string ModelTree::path_of(int module, const std::string& name) const {
  const std::string& path = modules.at(module).path;
  return path.empty() || name.empty() ? path + name : path + "." + name;
}

int ModelTree::add_module(const std::string& name, std::string type_name, int parent, bool is_list) {
  const int num_modules = static_cast<int>(modules.size());
  HYDROFOIL_CHECK_ARG(modules.empty() ? parent == -1 : parent >= 0 && parent < num_modules, "add_module", "parent of '",
                      name, "': got ", parent, ", expected ",
                      modules.empty() ? "-1 for the root" : "the number of a module that was added before");
  modules.push_back({parent < 0 ? name : path_of(parent, name), std::move(type_name), parent, is_list, false, {}});
  return num_modules;
}

void ModelTree::add_parameter(int module, const std::string& name, const at::Tensor& parameter) {
  HYDROFOIL_CHECK_ARG(parameter.defined(), "add_parameter", "parameter ", path_of(module, name), " is undefined");
  auto& own = modules.at(module).parameters;
  for (size_t p = 0; p < parameters.size(); ++p) {
    if (parameters[p].parameter.is_same(parameter)) return own.push_back(static_cast<int64_t>(p));
  }
  own.push_back(static_cast<int64_t>(parameters.size()));
  parameters.push_back({path_of(module, name), parameter, 0, nullptr});
}

void ModelTree::add_buffer(int module, const std::string& name, const at::Tensor& buffer) {
  buffers.push_back({path_of(module, name), buffer});
}

}  // namespace hydrofoil::zero
