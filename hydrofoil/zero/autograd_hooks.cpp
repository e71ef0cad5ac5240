#include "hydrofoil/zero/autograd_hooks.h"

#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>

namespace hydrofoil::zero {
namespace {

using torch::autograd::FunctionPreHook;
using torch::autograd::variable_list;

// Calls it with its errors translated.
template <typename Callback, typename... Arguments>
void guarded(const Callback& callback, const ErrorTranslator& translate, const Arguments&... arguments) {
  try {
    callback(arguments...);
  } catch (...) {
    if (translate) translate();
    throw;
  }
}

struct SinkHook : FunctionPreHook {
  SinkHook(GradientSink s, ErrorTranslator t) : sink(std::move(s)), translate(std::move(t)) {}
  variable_list operator()(const variable_list& gradients) override {
    if (gradients.empty() || !gradients[0].defined()) return gradients;
    guarded(sink, translate, gradients[0]);
    return {at::Tensor()};  // AccumulateGrad has nothing left to do; its post hooks still run
  }
  GradientSink sink;
  ErrorTranslator translate;
};

}  // namespace

struct GradientHook::Impl {
  // intrusive_ptr in newer versions of torch, shared_ptr in older ones. The parameter holds its node weakly.
  decltype(torch::autograd::impl::grad_accumulator(std::declval<const at::Tensor&>())) node;
  FunctionPreHook* hook = nullptr;
};

GradientHook::GradientHook(const at::Tensor& parameter, GradientSink sink, const ErrorTranslator& translate)
    : impl_(std::make_unique<Impl>()) {
  impl_->node = torch::autograd::impl::grad_accumulator(parameter);
  auto hook = std::make_unique<SinkHook>(std::move(sink), translate);
  impl_->hook = hook.get();
  impl_->node->add_pre_hook(std::move(hook));
}

GradientHook::~GradientHook() {
  auto& hooks = impl_->node->pre_hooks();
  hooks.erase(std::remove_if(hooks.begin(), hooks.end(), [&](const auto& hook) { return hook.get() == impl_->hook; }),
              hooks.end());
}

bool in_backward() { return torch::autograd::get_current_graph_task_id() != -1; }

void queue_backward_callback(std::function<void()> callback, const ErrorTranslator& translate) {
  torch::autograd::Engine::get_default_engine().queue_callback(
      [callback = std::move(callback), translate] { guarded(callback, translate); });
}

void watch_gradient(const at::Tensor& tensor, std::function<void()> callback, const ErrorTranslator& translate) {
  tensor.register_hook(
      [callback = std::move(callback), translate](const at::Tensor&) { guarded(callback, translate); });
}

}  // namespace hydrofoil::zero
