#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "hydrofoil/zero/runtime.h"

namespace hydrofoil::zero {

// One call of a scope's module: its units are gathered from construction to leave(), and again for its backward.
//
//   UnitCall call(runtime, scope);
//   call.input(x);
//   y = forward(x);
//   call.leave();
//   call.output(y);
//
// Destroyed before leave(), as an exception does, it counts as failed. See NOTE [Boundaries].
class UnitCall {
 public:
  // Collective where parameters are sharded.
  UnitCall(Runtime& runtime, int scope);
  ~UnitCall();
  UnitCall(const UnitCall&) = delete;
  UnitCall& operator=(const UnitCall&) = delete;

  // Each tensor that goes in; with grad mode off it does nothing.
  void input(const at::Tensor& tensor);
  // The forward has returned. Throws InvalidArgument where it wrote a sharded parameter.
  void leave();
  // Each tensor that comes out, after leave(). Returns whether its gradient tells when the backward begins.
  bool output(const at::Tensor& tensor);

 private:
  Runtime& runtime_;
  std::shared_ptr<Invocation> invocation_;
  std::vector<const void*> inputs_;  // what passes through unchanged says nothing about this module's backward
};

}  // namespace hydrofoil::zero
