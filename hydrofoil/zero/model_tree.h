#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "hydrofoil/zero/boundaries.h"
#include "hydrofoil/zero/runtime.h"

namespace hydrofoil::zero {

struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};

// A model as an engine takes it over: its tree of modules, their parameters and buffers under the names that
// checkpoints use, and the calls of the modules. The model keeps its tensors, which are the same ones.
struct ModelTree {
  std::vector<ModuleNode> modules;
  std::vector<RuntimeParameter> parameters;  // each once, under its first name
  std::vector<NamedTensor> buffers;          // what a checkpoint keeps beside parameters
  std::shared_ptr<Boundaries> boundaries = std::make_shared<Boundaries>();

  // Appends a module and returns its number, for Boundaries::call; the first is the root (parent -1, name ""), and
  // parents come before children. `type_name`: siblings of one type in a list are repeated blocks, each a unit.
  int add_module(const std::string& name, std::string type_name, int parent, bool is_list = false);
  // Gives a module a parameter; a tensor that another module has is shared (tied) and keeps its first name.
  void add_parameter(int module, const std::string& name, const at::Tensor& parameter);
  void add_buffer(int module, const std::string& name, const at::Tensor& buffer);

  // "model.layers.0.mlp" for the child "mlp" of that module.
  [[nodiscard]] std::string path_of(int module, const std::string& name) const;
};

}  // namespace hydrofoil::zero
