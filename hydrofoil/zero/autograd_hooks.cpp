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

struct SinkHook : FunctionPreHook {
  explicit SinkHook(GradientSink s) : sink(std::move(s)) {}
  variable_list operator()(const variable_list& gradients) override {
    if (gradients.empty() || !gradients[0].defined()) return gradients;
    sink(gradients[0]);
    return {at::Tensor()};  // AccumulateGrad has nothing left to do; its post hooks still run
  }
  GradientSink sink;
};

}  // namespace

struct GradientHook::Impl {
  // intrusive_ptr in newer versions of torch, shared_ptr in older ones. The parameter holds its node weakly.
  decltype(torch::autograd::impl::grad_accumulator(std::declval<const at::Tensor&>())) node;
  FunctionPreHook* hook = nullptr;
};

GradientHook::GradientHook(const at::Tensor& parameter, GradientSink sink) : impl_(std::make_unique<Impl>()) {
  impl_->node = torch::autograd::impl::grad_accumulator(parameter);
  auto hook = std::make_unique<SinkHook>(std::move(sink));
  impl_->hook = hook.get();
  impl_->node->add_pre_hook(std::move(hook));
}

GradientHook::~GradientHook() {
  auto& hooks = impl_->node->pre_hooks();
  hooks.erase(std::remove_if(hooks.begin(), hooks.end(), [&](const auto& hook) { return hook.get() == impl_->hook; }),
              hooks.end());
}

bool in_backward() { return torch::autograd::get_current_graph_task_id() != -1; }

void queue_backward_callback(std::function<void()> callback) {
  torch::autograd::Engine::get_default_engine().queue_callback(std::move(callback));
}

void watch_gradient(const at::Tensor& tensor, std::function<void()> callback) {
  tensor.register_hook([callback = std::move(callback)](const at::Tensor&) { callback(); });
}

}  // namespace hydrofoil::zero
