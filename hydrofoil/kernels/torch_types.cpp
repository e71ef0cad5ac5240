#include "hydrofoil/kernels/torch_types.h"

#include "hydrofoil/base/error.h"

namespace hydrofoil::kernels {

ElementType element_type(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return ElementType::kFloat32;
    case at::kBFloat16:
      return ElementType::kBFloat16;
    case at::kHalf:
      return ElementType::kFloat16;
    default:
      HYDROFOIL_CHECK_ARG(false, "element_type", "dtype: got ", c10::toString(dtype),
                          ", expected Float, BFloat16 or Half");
  }
}

}  // namespace hydrofoil::kernels
