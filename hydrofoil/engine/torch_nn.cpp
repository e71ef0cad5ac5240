#include "hydrofoil/engine/torch_nn.h"

#include <torch/nn/modules/container/moduledict.h>

#include "hydrofoil/base/error.h"
#include "hydrofoil/base/log.h"

namespace hydrofoil::engine {
namespace {

bool is_list(const torch::nn::Module& module) {
  return module.as<torch::nn::SequentialImpl>() != nullptr || module.as<torch::nn::ModuleListImpl>() != nullptr ||
         module.as<torch::nn::ModuleDictImpl>() != nullptr;
}

}  // namespace

std::shared_ptr<TorchCalls> TorchCalls::describe(torch::nn::Module& root, zero::ModelTree& tree) {
  auto calls = std::make_shared<TorchCalls>();
  calls->boundaries_ = tree.boundaries;
  calls->visit(root, "", -1, tree, calls);
  return calls;
}

void TorchCalls::visit(torch::nn::Module& module, const std::string& name, int parent, zero::ModelTree& tree,
                       const std::shared_ptr<TorchCalls>& self) {
  if (numbers_.contains(&module)) return;  // shared: it belongs to where it came first
  const int number = tree.add_module(name, module.name(), parent, is_list(module));
  numbers_[&module] = number;
  auto* calls_children = dynamic_cast<CallsChildren*>(&module);
  if (calls_children != nullptr) {
    calls_children->calls_ = self;
  } else if (!is_list(module) && !module.children().empty()) {
    tree.modules[number].keep_whole = true;
    log_info("initialize: module ", number == 0 ? "(root)" : tree.modules[number].path, " (", module.name(),
             ") is gathered whole, since it does not derive from hydrofoil::engine::CallsChildren");
  }
  for (const auto& item : module.named_parameters(/*recurse=*/false)) {
    tree.add_parameter(number, item.key(), item.value());
  }
  for (const auto& item : module.named_buffers(/*recurse=*/false)) tree.add_buffer(number, item.key(), item.value());
  for (const auto& item : module.named_children()) visit(*item.value(), item.key(), number, tree, self);
}

at::Tensor TorchCalls::run_sequential(torch::nn::SequentialImpl& modules, at::Tensor x) {
  for (auto& module : modules) {
    x = boundaries_->call(number_of(*module.ptr()), x, [&] { return module.forward(x); });
  }
  return x;
}

int TorchCalls::number_of(const torch::nn::Module& module) const {
  const auto found = numbers_.find(&module);
  HYDROFOIL_CHECK_ARG(found != numbers_.end(), "call", "module ", module.name(),
                      " was not in the model when the engine was made; register it before initialize");
  return found->second;
}

}  // namespace hydrofoil::engine
