#include "hydrofoil/zero/unit_call.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>

namespace hydrofoil::zero {

UnitCall::UnitCall(Runtime& runtime, int scope) : runtime_(runtime), invocation_(runtime.enter(scope)) {}

UnitCall::~UnitCall() {
  if (invocation_->in_forward && runtime_.alive()) runtime_.gatherer().exit(invocation_, /*failed=*/true);
}

void UnitCall::input(const at::Tensor& tensor) {
  if (!at::GradMode::is_enabled()) return;
  inputs_.push_back(tensor.unsafeGetTensorImpl());
  runtime_.gatherer().watch_input(invocation_, tensor);
}

void UnitCall::leave() { runtime_.gatherer().exit(invocation_, /*failed=*/false); }

bool UnitCall::output(const at::Tensor& tensor) {
  runtime_.keep_for_caller(tensor);
  if (!at::GradMode::is_enabled()) return false;
  if (std::find(inputs_.begin(), inputs_.end(), tensor.unsafeGetTensorImpl()) != inputs_.end()) return false;
  runtime_.gatherer().watch_output(invocation_, tensor);
  return tensor.requires_grad();
}

}  // namespace hydrofoil::zero
