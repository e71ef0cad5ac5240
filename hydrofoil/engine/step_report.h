#pragma once

#include <c10/core/Device.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "hydrofoil/base/stopwatch.h"
#include "hydrofoil/engine/engine_options.h"
#include "hydrofoil/zero/runtime.h"

namespace hydrofoil::engine {

// The calls of a micro step, as the program makes them.
enum class Phase { kForward, kBackward, kStep };
inline constexpr int kNumPhases = 3;
[[nodiscard]] const char* phase_name(Phase phase);

// Milliseconds of an optimizer step: its phases, and how long this rank stood still for the others within them.
struct PhaseTimes {
  double forward_ms = 0.0;
  double backward_ms = 0.0;
  double step_ms = 0.0;
  double reduce_wait_ms = 0.0;
  double gather_wait_ms = 0.0;
};

// Samples a second, over the time from the way into forward to the way out of step(); over the time since the last
// step() where no forward was noticed. The first kWarmUpSteps optimizer steps are left out.
class Throughput {
 public:
  static constexpr int64_t kWarmUpSteps = 2;

  // A micro step begins; nothing where it has begun. `now_ns`: monotonic_ns().
  void begin_micro_step(int64_t now_ns);
  // `boundary`: of an optimizer step of `samples` samples, all ranks together.
  void end_micro_step(bool boundary, int64_t samples, int64_t now_ns);

  [[nodiscard]] int64_t num_steps() const { return num_steps_; }  // counted ones
  [[nodiscard]] double seconds() const { return 1e-9 * static_cast<double>(total_ns_); }
  // Of all counted steps; and of those since the last take_recent(). nullopt before the first.
  [[nodiscard]] std::optional<double> average() const;
  std::optional<double> take_recent();

 private:
  int64_t num_steps_seen_ = 0;
  int64_t num_steps_ = 0;
  int64_t begin_ns_ = 0;  // 0: no micro step runs
  int64_t end_ns_ = 0;    // of the last
  int64_t total_ns_ = 0;
  int64_t total_samples_ = 0;
  int64_t reported_ns_ = 0;
  int64_t reported_samples_ = 0;
};

// What a rank measures of its steps: `steps_per_print`, `wall_clock_breakdown`, `timers.throughput`. With the breakdown
// off, a step costs two readings of the clock for the throughput.
class StepReport {
 public:
  StepReport(const EngineOptions& options, zero::Runtime& runtime);

  // The program enters and leaves a phase; calls nest, the outermost counts, and its end() returns true. On an
  // accelerator with wall_clock_breakdown both wait for the device.
  void begin(Phase phase);
  bool end(Phase phase);
  // A forward that a step will follow begins, whether phases are measured or not.
  void begin_micro_step();
  void end_micro_step(bool boundary, int64_t samples);
  // After the way out of the phase kStep of a boundary.
  void end_step();

  // Whether step number `step` is one of those that steps_per_print names; `otherwise`: where it is not given.
  [[nodiscard]] bool is_due(int64_t step, bool otherwise) const;
  [[nodiscard]] bool measures_phases() const { return enabled_; }
  [[nodiscard]] Stopwatch& watch(Phase phase) { return watches_[static_cast<size_t>(phase)]; }
  [[nodiscard]] Stopwatch& gather_wait() { return waits_.gather; }
  [[nodiscard]] Stopwatch& reduce_wait() { return waits_.reduce; }
  // Of the last optimizer step; and of a step on average since the last take_mean().
  [[nodiscard]] const PhaseTimes& last_step() const { return last_step_; }
  PhaseTimes take_mean();
  [[nodiscard]] Throughput& throughput() { return throughput_; }

 private:
  using Totals = std::array<int64_t, kNumPhases + 2>;
  [[nodiscard]] Totals totals() const;
  void wait_for_device() const;

  std::optional<int64_t> steps_per_print_;
  bool enabled_ = false;
  bool measures_throughput_ = true;
  c10::Device device_;
  zero::WaitTimes& waits_;
  std::array<Stopwatch, kNumPhases> watches_;
  std::array<int, kNumPhases> depths_{};
  Throughput throughput_;
  Totals at_step_{};    // when the last optimizer step ended
  Totals at_report_{};  // at the last take_mean()
  int64_t num_steps_ = 0;
  PhaseTimes last_step_;
};

// What a progress line says. A parameter group has one momentum, two betas, or none.
struct Progress {
  int64_t step = 0;
  int64_t skipped = 0;
  std::vector<double> lr;
  std::vector<std::vector<double>> momentum;
  double grad_norm = 0.0;
  std::optional<double> loss_scale;
  std::optional<double> samples_per_second;  // of the whole job
  int num_ranks = 1;
};

// "step=10, skipped=0, lr=[0.001], mom=[(0.9, 0.999)], grad_norm=0.51, samples/s=812.3 (406.2 a rank)".
[[nodiscard]] std::string progress_line(const Progress& progress);
// "step=10, time (ms) | forward: 1.20 | backward: 2.51 | step: 0.42 | reduce wait: 0.10 | gather wait: 0.33".
[[nodiscard]] std::string breakdown_line(int64_t step, const PhaseTimes& times);
// The memory of this rank by tier and category, and of its process: one line.
[[nodiscard]] std::string memory_line(const std::string& when, const zero::MemoryReport& memory,
                                      const c10::Device& device);

}  // namespace hydrofoil::engine
