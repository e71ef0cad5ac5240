#pragma once

namespace hydrofoil::kernels {

enum class UpdateRule { kAdam, kAdamW, kSgd, kAdagrad, kLion };

// What the update of one run of elements multiplies by; each rule reads the fields its formula names.
// p: master, g: gradient * gradient_scale, m: first state, v: second state (Adagrad: v is the only state, `first`).
//   all but AdamW and Lion   g += weight_decay * p
//   AdamW, Lion              p *= decay_factor                                                      (1 - lr *
//   weight_decay) Adam, AdamW              m += (g - m) * one_minus_beta1; v = v * beta2 + one_minus_beta2 * g * g;
//                            p -= step_size * m / (sqrt(v) / bias_correction2_sqrt + eps)
//   Sgd                      m = first_step ? g : m * momentum + g * one_minus_dampening;
//                            p -= step_size * (momentum == 0 ? g : nesterov ? g + momentum * m : m)
//   Adagrad                  m += g * g; p -= step_size * g / (sqrt(m) + eps)
//   Lion                     p -= step_size * sign(m * beta1 + g * one_minus_beta1); m = m * beta2 + g *
//   one_minus_beta2
struct UpdateCoefficients {
  float step_size = 0;
  float weight_decay = 0;
  float decay_factor = 1;
  float beta1 = 0;
  float one_minus_beta1 = 1;
  float beta2 = 0;
  float one_minus_beta2 = 1;
  float bias_correction2_sqrt = 1;
  float eps = 0;
  float momentum = 0;
  float one_minus_dampening = 1;
  bool nesterov = false;
  bool first_step = false;
};

}  // namespace hydrofoil::kernels
