#pragma once

#include <cstdint>

#include "hydrofoil/base/error.h"

namespace hydrofoil::optim {

// fp16 gradients overflowed while the dynamic loss scale could not go down any more. Python sees RuntimeError.
class LossScaleAtMinimum : public Error {
 public:
  using Error::Error;
};

struct LossScalerOptions {
  bool dynamic = false;
  double static_scale = 1.0;            // where not dynamic; fp32 and bf16 train at 1
  double initial_scale = 65536.0;       // 2 ** initial_scale_power
  int64_t window = 1000;                // steps without an overflow before the scale doubles
  double min_scale = 1.0;               // an overflow at this scale throws
  int64_t hysteresis = 2;               // overflows that are taken before the scale halves
  bool consecutive_hysteresis = false;  // refill the hysteresis at every good step, not only when the scale doubles

  // Throws InvalidArgument for scales that are not positive and finite, and for a window or hysteresis below 1.
  void validate() const;
};

// What a checkpoint keeps.
struct LossScalerState {
  double scale = 1.0;
  int64_t iteration = 0;
  int64_t last_overflow_iteration = -1;
  int64_t hysteresis_left = 0;

  bool operator==(const LossScalerState&) const = default;
};

// Loss scale with the semantics of DeepSpeed's DynamicLossScaler (as its ZeRO stages 1-3 use it) or a constant one.
// Every rank makes the same calls, so all ranks agree without communication.
class LossScaler {
 public:
  // Throws InvalidArgument as validate() does.
  explicit LossScaler(const LossScalerOptions& options);

  [[nodiscard]] double scale() const { return state_.scale; }
  [[nodiscard]] bool is_dynamic() const { return options_.dynamic; }
  [[nodiscard]] const LossScalerOptions& options() const { return options_; }

  // Called once an optimizer step with whether any rank's gradient overflowed. A static scale stays as it is.
  // Throws LossScaleAtMinimum, and changes nothing, where an overflow asks for a scale below `min_scale`.
  void update(bool overflow);

  // Replaces the scale, of a static scaler too. Throws InvalidArgument unless it is positive and finite.
  void set_scale(double scale);

  [[nodiscard]] const LossScalerState& state() const { return state_; }

  // Throws InvalidArgument for values that no scaler can have.
  void load_state(const LossScalerState& state);

 private:
  void shrink();
  void grow_when_stable();

  LossScalerOptions options_;
  LossScalerState state_;
};

}  // namespace hydrofoil::optim
