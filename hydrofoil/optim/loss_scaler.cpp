#include "hydrofoil/optim/loss_scaler.h"

#include <algorithm>
#include <cmath>

namespace hydrofoil::optim {
namespace {

constexpr double kFactor = 2.0;

void check_scale(const char* function, const char* what, double scale) {
  HYDROFOIL_CHECK_ARG(std::isfinite(scale) && scale > 0, function, what, ": got ", scale,
                      ", expected a positive finite number");
}

}  // namespace

void LossScalerOptions::validate() const {
  constexpr char kName[] = "LossScaler";
  check_scale(kName, "static scale", static_scale);
  check_scale(kName, "initial scale", initial_scale);
  check_scale(kName, "minimum scale", min_scale);
  HYDROFOIL_CHECK_ARG(window >= 1, kName, "window: got ", window, ", expected at least 1");
  HYDROFOIL_CHECK_ARG(hysteresis >= 1, kName, "hysteresis: got ", hysteresis, ", expected at least 1");
}

LossScaler::LossScaler(const LossScalerOptions& options) : options_(options) {
  options_.validate();
  state_.scale = options_.dynamic ? options_.initial_scale : options_.static_scale;
  state_.hysteresis_left = options_.dynamic ? options_.hysteresis : 0;
}

void LossScaler::update(bool overflow) {
  if (!options_.dynamic) return;
  if (overflow) {
    shrink();
    state_.last_overflow_iteration = state_.iteration;
  } else {
    if (options_.consecutive_hysteresis) state_.hysteresis_left = options_.hysteresis;
    grow_when_stable();
  }
  ++state_.iteration;
}

void LossScaler::shrink() {
  if (options_.hysteresis != 1 && state_.hysteresis_left != 1) {
    --state_.hysteresis_left;
    return;
  }
  if (state_.scale == options_.min_scale) {
    throw LossScaleAtMinimum(hydrofoil::detail::concat(
        "[LossScaler] gradients overflow at the minimum loss scale, got scale ", state_.scale,
        "; the model diverges or its gradients exceed fp16: lower the learning rate, train in bf16, or lower "
        "fp16.min_loss_scale"));
  }
  state_.scale = std::max(state_.scale / kFactor, options_.min_scale);
}

void LossScaler::grow_when_stable() {
  const int64_t stable_steps = state_.iteration - state_.last_overflow_iteration - 1;
  if (stable_steps <= 0 || stable_steps % options_.window != 0) return;
  if (!options_.consecutive_hysteresis) state_.hysteresis_left = options_.hysteresis;
  state_.scale *= kFactor;
}

void LossScaler::set_scale(double scale) {
  check_scale("LossScaler::set_scale", "scale", scale);
  state_.scale = scale;
}

void LossScaler::load_state(const LossScalerState& state) {
  constexpr char kName[] = "LossScaler::load_state";
  check_scale(kName, "scale", state.scale);
  HYDROFOIL_CHECK_ARG(state.iteration >= 0 && state.last_overflow_iteration >= -1 &&
                          state.last_overflow_iteration < std::max<int64_t>(state.iteration, 1),
                      kName, "iterations: got ", state.iteration, " with the last overflow at ",
                      state.last_overflow_iteration, ", expected an earlier one, or -1");
  HYDROFOIL_CHECK_ARG(!options_.dynamic || state.hysteresis_left >= 1, kName, "hysteresis left: got ",
                      state.hysteresis_left, ", expected at least 1");
  state_ = state;
}

}  // namespace hydrofoil::optim
