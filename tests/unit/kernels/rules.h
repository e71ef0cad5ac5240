#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "hydrofoil/kernels/update_rule.h"

namespace hydrofoil::kernels::testing_support {

// The formulas of torch.optim and of the Lion paper, written out for one element.
template <typename Real>
struct Element {
  Real p = 0, m = 0, v = 0;
};

struct Settings {
  double lr = 1e-2, beta1 = 0.9, beta2 = 0.99, eps = 1e-8, weight_decay = 0, momentum = 0, dampening = 0;
  bool nesterov = false;
};

template <typename Real>
Real sign(Real value) {
  return value > 0 ? Real(1) : value < 0 ? Real(-1) : Real(0);
}

template <typename Real>
void reference_update(UpdateRule rule, const Settings& s, int64_t step, Real g, Element<Real>& e) {
  const Real lr = s.lr, beta1 = s.beta1, beta2 = s.beta2;
  if (rule == UpdateRule::kAdamW || rule == UpdateRule::kLion) {
    e.p *= Real(1 - s.lr * s.weight_decay);
  } else {
    g += Real(s.weight_decay) * e.p;
  }
  switch (rule) {
    case UpdateRule::kAdam:
    case UpdateRule::kAdamW: {
      e.m = beta1 * e.m + Real(1 - s.beta1) * g;
      e.v = beta2 * e.v + Real(1 - s.beta2) * g * g;
      const Real mean = e.m / Real(1 - std::pow(s.beta1, step));
      const Real square = e.v / Real(1 - std::pow(s.beta2, step));
      e.p -= lr * mean / (std::sqrt(square) + Real(s.eps));
      break;
    }
    case UpdateRule::kSgd:
      if (s.momentum != 0) {
        e.m = step == 1 ? g : Real(s.momentum) * e.m + Real(1 - s.dampening) * g;
        g = s.nesterov ? g + Real(s.momentum) * e.m : e.m;
      }
      e.p -= lr * g;
      break;
    case UpdateRule::kAdagrad:
      e.m += g * g;
      e.p -= lr * g / (std::sqrt(e.m) + Real(s.eps));
      break;
    case UpdateRule::kLion:
      e.p -= lr * sign(beta1 * e.m + Real(1 - s.beta1) * g);
      e.m = beta2 * e.m + Real(1 - s.beta2) * g;
      break;
  }
}

inline UpdateCoefficients coefficients(const Settings& s, UpdateRule rule, int64_t step) {
  UpdateCoefficients c;
  const bool is_adam = rule == UpdateRule::kAdam || rule == UpdateRule::kAdamW;
  c.step_size = is_adam ? s.lr / (1 - std::pow(s.beta1, step)) : s.lr;
  c.weight_decay = s.weight_decay;
  c.decay_factor = rule == UpdateRule::kAdamW || rule == UpdateRule::kLion ? 1 - s.lr * s.weight_decay : 1;
  c.beta1 = s.beta1;
  c.one_minus_beta1 = 1 - s.beta1;
  c.beta2 = s.beta2;
  c.one_minus_beta2 = 1 - s.beta2;
  c.bias_correction2_sqrt = std::sqrt(1 - std::pow(s.beta2, step));
  c.eps = s.eps;
  c.momentum = s.momentum;
  c.one_minus_dampening = 1 - s.dampening;
  c.nesterov = s.nesterov;
  c.first_step = step == 1;
  return c;
}

inline std::vector<float> normal_values(int64_t numel, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> values(numel);
  for (float& value : values) value = normal(random);
  return values;
}

}  // namespace hydrofoil::kernels::testing_support
