#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace hydrofoil::optim {

enum class ScheduleKind { kWarmup, kWarmupDecay, kWarmupCosine, kOneCycle, kLrRangeTest };
enum class WarmupType { kLog, kLinear };

// Parses "WarmupLR", "WarmupDecayLR", "WarmupCosineLR", "OneCycle", "LRRangeTest" (exact, as in DeepSpeed), and "log",
// "linear". Throw InvalidArgument that lists the known names and the nearest one.
[[nodiscard]] ScheduleKind parse_schedule_kind(std::string_view name);
[[nodiscard]] WarmupType parse_warmup_type(std::string_view name);

// Parameters with DeepSpeed's names and defaults; a schedule reads those that carry its name. A vector holds one value
// for all parameter groups, or one for each.
struct ScheduleOptions {
  ScheduleKind kind = ScheduleKind::kWarmup;
  int64_t last_batch_iteration = -1;  // -1: nothing has been trained yet

  // WarmupLR, WarmupDecayLR, WarmupCosineLR
  std::vector<double> warmup_min_lr = {0.0};
  std::vector<double> warmup_max_lr;  // empty: each group's own lr (WarmupLR) or 0.001 (WarmupDecayLR)
  int64_t warmup_num_steps = 1000;    // 1 counts as 2
  WarmupType warmup_type = WarmupType::kLog;
  std::optional<int64_t> total_num_steps;  // required by WarmupDecayLR and WarmupCosineLR
  double warmup_min_ratio = 0.0;           // WarmupCosineLR: of each group's own lr
  double cos_min_ratio = 0.0001;

  // OneCycle; momentum moves against the lr
  std::optional<double> cycle_min_lr;  // required
  std::optional<double> cycle_max_lr;  // required
  double decay_lr_rate = 0.0;
  int64_t cycle_first_step_size = 2000;
  std::optional<int64_t> cycle_second_step_size;  // none: as the first
  int64_t cycle_first_stair_count = 0;            // 0: no stairs
  std::optional<int64_t> cycle_second_stair_count;
  int64_t decay_step_size = 0;  // 0: no decay after the cycle
  bool cycle_momentum = true;
  double cycle_min_mom = 0.8;
  double cycle_max_mom = 0.9;
  double decay_mom_rate = 0.0;

  // LRRangeTest
  std::vector<double> lr_range_test_min_lr = {1e-3};
  int64_t lr_range_test_step_size = 2000;
  double lr_range_test_step_rate = 1.0;
  bool lr_range_test_staircase = false;

  // Throws InvalidArgument for a required parameter that is missing, a step count that is not positive, a vector that
  // has neither 1 nor `num_groups` values, or a value that is not finite.
  void validate(size_t num_groups) const;
};

// What a schedule sets in the optimizer. OneCycle sets (beta1, beta2) of optimizers that have betas; other schedules,
// and cycle_momentum false, set neither.
struct ScheduleValues {
  std::vector<double> lr;          // one a parameter group
  std::optional<double> momentum;  // beta1
  std::optional<double> beta2;

  bool operator==(const ScheduleValues&) const = default;
};

// A learning rate schedule of DeepSpeed (formulas of its lr_schedules.py). Use: set values() in the optimizer after
// construction, and step()'s result after every optimizer step that was not skipped. So the first optimizer step runs
// at values_at(-1), the second at values_at(0), and so on, as in DeepSpeed.
class LrSchedule {
 public:
  // `base_lrs`: lr of each parameter group as the optimizer was configured. Throws InvalidArgument as validate() does,
  // and for no group at all.
  LrSchedule(ScheduleOptions options, std::vector<double> base_lrs);

  // Values that step() sets when it reaches `iteration`; at -1 those that DeepSpeed sets at construction: the minimum
  // (lr 0 for WarmupCosineLR; cycle_min_mom for OneCycle). Throws InvalidArgument if `iteration` < -1.
  [[nodiscard]] ScheduleValues values_at(int64_t iteration) const;

  [[nodiscard]] ScheduleValues values() const { return values_at(last_batch_iteration_); }

  // Goes to the next iteration, or to the given one.
  ScheduleValues step(std::optional<int64_t> iteration = std::nullopt);

  [[nodiscard]] const ScheduleOptions& options() const { return options_; }

  // The state that a checkpoint keeps. The setter throws InvalidArgument if `iteration` < -1.
  [[nodiscard]] int64_t last_batch_iteration() const { return last_batch_iteration_; }
  void set_last_batch_iteration(int64_t iteration);

 private:
  [[nodiscard]] double warmup_gamma(int64_t iteration) const;
  [[nodiscard]] ScheduleValues warmup_values(int64_t iteration) const;
  [[nodiscard]] ScheduleValues cosine_values(int64_t iteration) const;
  [[nodiscard]] ScheduleValues cycle_values(int64_t iteration) const;
  [[nodiscard]] double cycle_scale(int64_t iteration) const;
  [[nodiscard]] ScheduleValues range_test_values(int64_t iteration) const;

  ScheduleOptions options_;
  std::vector<double> base_lrs_;
  int64_t last_batch_iteration_;
};

}  // namespace hydrofoil::optim
