#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "hydrofoil/comm/group.h"
#include "hydrofoil/zero/autograd_hooks.h"
#include "hydrofoil/zero/unit.h"
#include "hydrofoil/zero/wait_times.h"

namespace hydrofoil::trace {
class Recorder;
}

namespace hydrofoil::zero {

// The first gradient of a window that was not finite on this rank, before any reduction.
struct NonFiniteGradient {
  std::string parameter;
  int64_t micro_step = 0;
};

// Consumes gradients from autograd and reduces them unit by unit.
//
// A round is one backward. Within it units are reduced in an order that all ranks share (recorded in the first round,
// rank 0's), each as soon as its gradients are complete and its predecessors have been launched; the end of the
// backward launches the rest, with zeros for what got no gradient. Gradients that arrive for a unit already launched
// (reentrant checkpoints, parameters unused so far) are kept and reduced once more at the end, when any rank has some.
// A backward with create_graph=True reduces nothing: the next one or the step does.
class GradientReducer {
 public:
  GradientReducer(std::vector<std::unique_ptr<Unit>>& units, comm::Group group, ReductionOptions options, bool sharded,
                  WaitTimes& waits, std::shared_ptr<trace::Recorder> recorder = nullptr);

  // Opens the round even if this rank will get no gradient in it: the other ranks may. Idempotent.
  void begin_round() {
    if (!round_open_) open_round();
  }
  // Called for each gradient; opens the round. `u`: unit, `b`: bucket of the unit, `i`: slot.
  void on_gradient(size_t u, size_t b, size_t i, const at::Tensor& gradient);
  // Called when the backward has ended.
  void end_round();
  // Called when a backward has failed: what the window holds is dropped. Returns whether it held something.
  bool abort_round();
  [[nodiscard]] bool round_open() const { return round_open_; }
  // Whether the round that runs, or comes next, is the last before a step.
  [[nodiscard]] bool window_ends() const { return window_ends_; }
  // Whether a backward has run since the last step.
  [[nodiscard]] bool window_open() const { return window_has_rounds_ || round_open_; }

  // Whether the following rounds reduce (always, if gradients are sharded), and the factor of each gradient.
  void configure_rounds(bool reduce, double scale, int64_t micro_step);
  void configure_as(const GradientReducer& other);
  // Whether the losses of the following rounds carry the loss scale; one that does not marks the window.
  void expect_scaled(bool scaled) { scaled_ = scaled; }
  [[nodiscard]] bool window_has_unscaled_rounds() const { return window_has_unscaled_rounds_; }
  // Makes every unit reduced; throws InvalidArgument where the window saw no backward.
  void complete_window();
  void reset_window();

  [[nodiscard]] const std::optional<NonFiniteGradient>& non_finite() const { return non_finite_; }
  [[nodiscard]] const std::vector<int64_t>& order() const { return order_; }

 private:
  [[nodiscard]] bool reduces_rounds() const { return window_ends_ || sharded_; }
  struct UnitRound {
    int64_t num_gradients = 0;
    int64_t expected = 0;
    bool launched = false;
    bool late = false;
  };
  struct LateGradient {
    size_t unit;
    size_t bucket;
    size_t slot;
    at::Tensor gradient;
  };

  void open_round();
  void allow_narrow(bool narrow);
  void launch_ready();
  void take(size_t u, size_t b, size_t i, const at::Tensor& gradient);
  void launch(size_t u);
  void settle(size_t max_in_flight);
  void finish_oldest();
  void finish_all();
  void reduce_late();
  void agree_on_order();

  std::vector<std::unique_ptr<Unit>>& units_;
  comm::Group group_;
  const ReductionOptions options_;
  const bool sharded_;
  const std::shared_ptr<trace::Recorder> recorder_;  // null: no trace is ever taken
  WaitTimes& waits_;
  std::vector<UnitRound> rounds_;
  std::vector<int64_t> order_;
  std::vector<int64_t> completed_;  // units in the order in which their gradients were complete
  size_t next_ = 0;                 // first of order_ that is not launched
  std::deque<size_t> in_flight_;
  std::vector<LateGradient> late_;
  bool deferred_ = false;  // create_graph=True: this round does not reduce
  bool diverged_ =
      false;  // the other ranks are elsewhere in this round: waiting for them inside backward could deadlock
  std::optional<NonFiniteGradient> non_finite_;
  bool scaled_ = true;
  bool window_has_unscaled_rounds_ = false;
  bool order_agreed_ = false;
  bool round_open_ = false;
  bool window_ends_ = true;
  bool window_has_rounds_ = false;
  bool window_reduced_ = false;
  double scale_ = 1.0;
  int64_t micro_step_ = 0;
};

}  // namespace hydrofoil::zero
