#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>

namespace hydrofoil::zero {

// Consumes the gradient of one backward for a parameter; runs without the GIL, maybe on another thread.
using GradientSink = std::function<void(const at::Tensor& gradient)>;

// Called in a catch block with what a hook threw: may throw it again as another type that its caller's language knows
// (autograd keeps types only of its own exceptions). Returns to keep the exception as it is. Null: keeps all.
using ErrorTranslator = std::function<void()>;

// While it lives, a parameter's AccumulateGrad node hands each gradient to `sink` and accumulates nothing itself; hooks
// of the user still see the gradient. It goes away whole: the node keeps no trace of it.
class GradientHook {
 public:
  // `parameter` is a leaf that requires a gradient.
  GradientHook(const at::Tensor& parameter, GradientSink sink, const ErrorTranslator& translate);
  ~GradientHook();
  GradientHook(const GradientHook&) = delete;
  GradientHook& operator=(const GradientHook&) = delete;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// True on a thread that runs a backward (a nested one too).
[[nodiscard]] bool in_backward();

// Runs `callback` once when the backward that runs on this thread has ended well. Only while in_backward().
void queue_backward_callback(std::function<void()> callback, const ErrorTranslator& translate);

// Runs `callback` when the gradient of `tensor` (that requires one) is known, in each backward.
void watch_gradient(const at::Tensor& tensor, std::function<void()> callback, const ErrorTranslator& translate);

}  // namespace hydrofoil::zero
