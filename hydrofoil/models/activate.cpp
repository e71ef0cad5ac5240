#include <ATen/ops/gelu.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tanh.h>

#include <cmath>
#include <numbers>

#include "hydrofoil/base/error.h"
#include "hydrofoil/models/detail/activate.h"

namespace hydrofoil::models {

at::Tensor activate(Activation activation, const at::Tensor& x) {
  switch (activation) {
    case Activation::kGelu:
      return at::gelu(x);
    case Activation::kGeluFast:
      return x.mul(0.5).mul(at::tanh(x.mul(0.7978845608).mul(x.mul(0.044715).mul(x).add(1.0))).add(1.0));
    case Activation::kGeluNew: {
      // The order of the calls is that of the gradient's sums.
      const at::Tensor half = x.mul(0.5);
      const at::Tensor inner = x.add(at::pow(x, 3.0).mul(0.044715)).mul(std::sqrt(2.0 / std::numbers::pi));
      return half.mul(at::tanh(inner).add(1.0));
    }
    case Activation::kGeluPytorchTanh:
      return at::gelu(x, "tanh");
    case Activation::kQuickGelu:
      return x.mul(at::sigmoid(x.mul(1.702)));
    case Activation::kRelu:
      return at::relu(x);
    case Activation::kSigmoid:
      return at::sigmoid(x);
    case Activation::kSilu:
      return at::silu(x);
    case Activation::kTanh:
      return at::tanh(x);
  }
  HYDROFOIL_ASSERT(false, "activation ", static_cast<int>(activation));
}

}  // namespace hydrofoil::models
