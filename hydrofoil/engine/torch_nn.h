#pragma once

// Models made of torch::nn modules. Including it costs what torch/torch.h costs: 20 s a file.

#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/container/sequential.h>

#include <memory>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "hydrofoil/engine/initialize.h"

namespace hydrofoil::engine {

class TorchCalls;

namespace torch_nn {

// The implementation behind a module holder (torch::nn::Linear), a shared_ptr to one, or itself.
template <typename Module>
auto& implementation(Module& module) {
  if constexpr (std::is_base_of_v<torch::nn::Module, std::remove_const_t<Module>>) {
    return module;
  } else {
    return *module;
  }
}

template <typename Arg>
void collect(std::vector<at::Tensor>& tensors, const Arg& arg) {
  if constexpr (std::is_convertible_v<const Arg&, const at::Tensor&>) tensors.push_back(arg);
}

}  // namespace torch_nn

// The trait of a module of the user's whose forward calls its children one by one: derive from it beside
// torch::nn::Module, and write call(child, x) for child->forward(x). The children then are gathered and released each
// by itself; a module without it is gathered whole.
//
//   struct BlockImpl : torch::nn::Module, hydrofoil::engine::CallsChildren {
//     at::Tensor forward(const at::Tensor& x) { return x + call(mlp, call(norm, x)); }
class CallsChildren {
 public:
  virtual ~CallsChildren() = default;

 protected:
  // `child`: a holder, a shared_ptr or a reference. Without an engine it is just the forward.
  template <typename Child, typename... Args>
  auto call(Child&& child, Args&&... args);

 private:
  friend class TorchCalls;
  std::shared_ptr<TorchCalls> calls_;
};

// Forwards of the modules of one model through its boundaries.
class TorchCalls {
 public:
  // Describes the modules, parameters and buffers of `root` in `tree`, and makes its CallsChildren call through it.
  static std::shared_ptr<TorchCalls> describe(torch::nn::Module& root, zero::ModelTree& tree);

  template <typename Module, typename... Args>
  auto run(Module& module, Args&&... args) {
    std::vector<at::Tensor> inputs;
    (torch_nn::collect(inputs, args), ...);
    auto& implementation = torch_nn::implementation(module);
    return boundaries_->call(number_of(implementation), inputs, [&] {
      if constexpr (std::is_same_v<std::remove_reference_t<decltype(implementation)>, torch::nn::SequentialImpl>) {
        return run_sequential(implementation, std::forward<Args>(args)...);
      } else {
        return implementation.forward(std::forward<Args>(args)...);
      }
    });
  }

 private:
  void visit(torch::nn::Module& module, const std::string& name, int parent, zero::ModelTree& tree,
             const std::shared_ptr<TorchCalls>& self);
  at::Tensor run_sequential(torch::nn::SequentialImpl& modules, at::Tensor x);
  // Throws InvalidArgument for a module that was not in the model when the engine was made.
  [[nodiscard]] int number_of(const torch::nn::Module& module) const;

  std::unordered_map<const torch::nn::Module*, int> numbers_;
  std::shared_ptr<zero::Boundaries> boundaries_;
};

template <typename Child, typename... Args>
auto CallsChildren::call(Child&& child, Args&&... args) {
  auto& implementation = torch_nn::implementation(child);
  static_assert(!std::is_same_v<std::remove_reference_t<decltype(implementation)>, torch::nn::Module>,
                "call needs the child's own type: list->at<BlockImpl>(i) instead of list[i]");
  if (calls_ == nullptr) return implementation.forward(std::forward<Args>(args)...);
  return calls_->run(implementation, std::forward<Args>(args)...);
}

// A torch::nn model under an engine: call it as the model; `->` is the engine.
//
//   auto engine = hydrofoil::engine::initialize(model, "ds_config.json", job);
//   engine->backward(loss(engine(x), y));
//   engine->step();
template <typename Holder>
class ModuleEngine {
 public:
  ModuleEngine(Holder module, std::string_view config, comm::Job& job, const InitializeOptions& options)
      : module_(std::move(module)) {
    zero::ModelTree tree;
    calls_ = TorchCalls::describe(torch_nn::implementation(module_), tree);
    engine_ = initialize(tree, config, job, options);
  }

  template <typename... Args>
  auto operator()(Args&&... args) {
    return calls_->run(module_, std::forward<Args>(args)...);
  }
  Engine* operator->() const { return engine_.get(); }
  Engine& operator*() const { return *engine_; }
  [[nodiscard]] Holder& module() { return module_; }

 private:
  Holder module_;
  std::shared_ptr<TorchCalls> calls_;
  std::unique_ptr<Engine> engine_;
};

// `module`: torch::nn::Sequential, or a holder of (or shared_ptr to) any torch::nn::Module; see CallsChildren. Throws
// as initialize() of a ModelTree.
template <typename Holder>
[[nodiscard]] ModuleEngine<Holder> initialize(Holder module, std::string_view config, comm::Job& job,
                                              const InitializeOptions& options = {}) {
  return ModuleEngine<Holder>(std::move(module), config, job, options);
}

}  // namespace hydrofoil::engine
