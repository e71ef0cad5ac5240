#include "hydrofoil/comm/local/self_backend.h"

#include <c10/core/GradMode.h>

namespace hydrofoil::comm {

void SelfBackend::run(const Operation& operation, const CallControl& /*control*/) {
  // A barrier has no buffers; in-place operations of one rank change nothing.
  if (!operation.output.defined() || operation.output.is_same(operation.input)) return;
  if (operation.numel() == 0 || operation.output.data_ptr() == operation.input.const_data_ptr()) return;
  const c10::AutoGradMode no_grad(false);
  operation.output.copy_(operation.input);
}

}  // namespace hydrofoil::comm
