#include "hydrofoil/zero/boundaries.h"

#include "hydrofoil/base/error.h"

namespace hydrofoil::zero {

void Boundaries::attach(Runtime* runtime) {
  HYDROFOIL_CHECK_ARG(runtime == nullptr || runtime_ == nullptr, "initialize",
                      "this model belongs to an engine already; destroy that one before");
  runtime_ = runtime;
  scope_of_module_.clear();
  if (runtime == nullptr) return;
  scope_of_module_.assign(runtime->modules().size(), -1);
  for (size_t s = 0; s < runtime->scopes().size(); ++s) {
    const int module = runtime->scopes()[s].module;
    if (runtime->watches_all_scopes() || module == 0) scope_of_module_[module] = static_cast<int>(s);
  }
}

std::unique_ptr<UnitCall> Boundaries::enter(int module, c10::ArrayRef<at::Tensor> inputs) const {
  if (runtime_ == nullptr || !runtime_->alive()) return nullptr;
  const int num_modules = static_cast<int>(scope_of_module_.size());
  HYDROFOIL_CHECK_ARG(module >= 0 && module < num_modules, "call", "module number: got ", module, ", expected 0 to ",
                      num_modules - 1, " as ModelTree::add_module returned it");
  const int scope = scope_of_module_[module];
  if (scope < 0) return nullptr;
  auto unit_call = std::make_unique<UnitCall>(*runtime_, scope);
  for (const at::Tensor& tensor : inputs) {
    if (tensor.defined()) unit_call->input(tensor);
  }
  return unit_call;
}

}  // namespace hydrofoil::zero
