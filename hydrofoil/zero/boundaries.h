#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "hydrofoil/zero/unit_call.h"

namespace hydrofoil::zero {

// The calls of a C++ model's modules. A model runs the forward of each of its modules through call(); before an engine
// takes the model over, and after that engine is gone, a call is just the forward. One thread at a time.
class Boundaries {
 public:
  // From now on calls gather and release what `runtime` shards; nullptr: no longer. Throws InvalidArgument where a
  // runtime is attached already.
  void attach(Runtime* runtime);
  [[nodiscard]] bool attached() const { return runtime_ != nullptr; }

  // Runs `body`, the forward of module number `module` of the model's tree, with its parameters gathered. `inputs`: the
  // tensors that go in and carry gradients. Returns what `body` returns: a tensor, or a vector, pair or tuple of them.
  // Collective where parameters are sharded. Exceptions of `body` pass through.
  template <typename Body>
  auto call(int module, c10::ArrayRef<at::Tensor> inputs, Body&& body) {
    const std::unique_ptr<UnitCall> unit_call = enter(module, inputs);
    auto result = std::forward<Body>(body)();
    if (unit_call != nullptr) {
      unit_call->leave();
      watch(*unit_call, result);
    }
    return result;
  }

 private:
  [[nodiscard]] std::unique_ptr<UnitCall> enter(int module, c10::ArrayRef<at::Tensor> inputs) const;

  static void watch(UnitCall& unit_call, const at::Tensor& tensor) {
    if (tensor.defined()) unit_call.output(tensor);
  }
  static void watch(UnitCall& unit_call, const std::vector<at::Tensor>& tensors) {
    for (const at::Tensor& tensor : tensors) watch(unit_call, tensor);
  }
  template <typename First, typename Second>
  static void watch(UnitCall& unit_call, const std::pair<First, Second>& results) {
    watch(unit_call, results.first);
    watch(unit_call, results.second);
  }
  template <typename... Results>
  static void watch(UnitCall& unit_call, const std::tuple<Results...>& results) {
    std::apply([&](const auto&... result) { (watch(unit_call, result), ...); }, results);
  }

  Runtime* runtime_ = nullptr;
  std::vector<int> scope_of_module_;  // -1: nothing happens at its call
};

}  // namespace hydrofoil::zero
