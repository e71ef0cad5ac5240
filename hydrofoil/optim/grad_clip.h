#pragma once

namespace hydrofoil::optim {

// Square root of a sum of squares, rounded to fp32 as torch's norm of an fp32 gradient is.
[[nodiscard]] float global_norm(double sum_of_squares);

// What torch.nn.utils.clip_grad_norm_ multiplies gradients by: max_norm / (norm + 1e-6), at most 1, in fp32 with
// torch's order of operations. `max_norm` 0 means no clipping (1). A NaN norm gives NaN. Throws InvalidArgument if
// `max_norm` is negative or not finite.
[[nodiscard]] float clip_coefficient(float norm, double max_norm);

}  // namespace hydrofoil::optim
