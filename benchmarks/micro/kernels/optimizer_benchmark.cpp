#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>

#include "benchmarks/micro/kernels/memory_benchmark.h"
#include "benchmarks/micro/kernels/workspace.h"
#include "hydrofoil/kernels/optimizer_update.h"

// AdamW's pass over a shard, and torch's fused AdamW (what torch.optim.AdamW(fused=True) calls) on one flat tensor, its
// best case. torch has neither 16-bit gradients beside fp32 parameters nor a 16-bit copy.

namespace hydrofoil::bench {
namespace {

constexpr double kRate = 1e-3, kBeta1 = 0.9, kBeta2 = 0.999, kEps = 1e-8, kDecay = 0.01;

void fill(Workspace& w) {
  w.master.fill_(0.5);
  w.first.zero_();
  w.second.zero_();
  w.low_first.zero_();
  w.low_second.zero_();
  w.gradient.fill_(1e-3);
  w.low.fill_(1e-3);
}

kernels::UpdateCoefficients coefficients() {
  return {.step_size = kRate,
          .decay_factor = 1 - kRate * kDecay,
          .beta1 = kBeta1,
          .one_minus_beta1 = 1 - kBeta1,
          .beta2 = kBeta2,
          .one_minus_beta2 = 1 - kBeta2,
          .bias_correction2_sqrt = 1,
          .eps = kEps};
}

}  // namespace

void register_optimizer(Workspace& w) {
  const int64_t numel = w.numel, updated_bytes = 24 * numel;  // master and two states, both ways
  for (const bool low_gradient : {false, true}) {
    for (const bool copy : {false, true}) {
      const kernels::UpdateBuffers buffers{
          .master = w.master.data_ptr<float>(),
          .first = w.first.data_ptr<float>(),
          .second = w.second.data_ptr<float>(),
          .gradient = low_gradient ? w.low.data_ptr() : w.gradient.data_ptr(),
          .gradient_type = low_gradient ? kernels::ElementType::kBFloat16 : kernels::ElementType::kFloat32,
          .model = copy ? w.low_too.data_ptr() : nullptr};
      const std::string name =
          std::string("adamw/hydrofoil/") + (low_gradient ? "bf16" : "fp32") + "_gradient" + (copy ? "/bf16_copy" : "");
      const Traffic traffic{.read_bytes = (low_gradient ? 2 : 4) * numel,
                            .updated_bytes = updated_bytes,
                            .written_bytes = copy ? 2 * numel : 0};
      register_memory_benchmark(
          name, numel, traffic, [&w] { fill(w); },
          [=] {
            const kernels::UpdateRun run{0, numel, coefficients()};
            kernels::optimizer_update(kernels::UpdateRule::kAdamW, buffers, {&run, 1}, 1.0F);
          });
    }
  }
  const kernels::UpdateBuffers low_states{.master = w.master.data_ptr<float>(),
                                          .first = w.low_first.data_ptr(),
                                          .second = w.low_second.data_ptr(),
                                          .state_type = kernels::ElementType::kBFloat16,
                                          .gradient = w.low.data_ptr(),
                                          .gradient_type = kernels::ElementType::kBFloat16,
                                          .model = w.low_too.data_ptr(),
                                          .rounding_key = 1};
  register_memory_benchmark(
      "adamw/hydrofoil/bf16_gradient/bf16_states/bf16_copy", numel,
      {.read_bytes = 2 * numel, .updated_bytes = 16 * numel, .written_bytes = 2 * numel}, [&w] { fill(w); },
      [=] {
        const kernels::UpdateRun run{0, numel, coefficients()};
        kernels::optimizer_update(kernels::UpdateRule::kAdamW, low_states, {&run, 1}, 1.0F);
      });
  const auto step = at::full({}, 1.0F);
  register_memory_benchmark(
      "adamw/torch/fp32_gradient", numel, {.read_bytes = 4 * numel, .updated_bytes = updated_bytes}, [&w] { fill(w); },
      [&w, step] {
        const at::NoGradGuard no_grad;
        at::_fused_adamw_({w.master}, {w.gradient}, {w.first}, {w.second}, {}, {step}, kRate, kBeta1, kBeta2, kDecay,
                          kEps, /*amsgrad=*/false, /*maximize=*/false);
      });
}

}  // namespace hydrofoil::bench
