#include "hydrofoil/optim/lr_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

#include "hydrofoil/base/error.h"
#include "hydrofoil/base/log.h"
#include "hydrofoil/base/nearest.h"

namespace hydrofoil::optim {
namespace {

constexpr char kName[] = "LrSchedule";
constexpr double kCycleBeta2 = 0.99;
constexpr double kDecayDefaultMaxLr = 0.001;

std::string joined(const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  return list;
}

size_t index_of_name(const char* function, const char* what, std::string_view name,
                     const std::vector<std::string>& names) {
  const auto found = std::find(names.begin(), names.end(), name);
  HYDROFOIL_CHECK_ARG(found != names.end(), function, what, ": got '", name, "', expected one of ", joined(names),
                      "; did you mean '", nearest_name(name, names), "'?");
  return found - names.begin();
}

void check_finite(const char* what, double value) {
  HYDROFOIL_CHECK_ARG(std::isfinite(value), kName, what, ": got ", value, ", expected a finite number");
}

void check_per_group(const char* what, const std::vector<double>& values, size_t num_groups) {
  HYDROFOIL_CHECK_ARG(values.size() == 1 || values.size() == num_groups, kName, what, ": got ", values.size(),
                      " values, expected 1 or one for each of the ", num_groups, " parameter groups");
  for (const double value : values) check_finite(what, value);
}

void check_at_least(const char* what, int64_t value, int64_t least) {
  HYDROFOIL_CHECK_ARG(value >= least, kName, what, ": got ", value, ", expected at least ", least);
}

double of_group(const std::vector<double>& values, size_t group) { return values[values.size() == 1 ? 0 : group]; }

void validate_warmup(const ScheduleOptions& options, size_t num_groups) {
  check_at_least("warmup_num_steps", options.warmup_num_steps, 1);
  check_per_group("warmup_min_lr", options.warmup_min_lr, num_groups);
  if (!options.warmup_max_lr.empty()) check_per_group("warmup_max_lr", options.warmup_max_lr, num_groups);
  check_finite("warmup_min_ratio", options.warmup_min_ratio);
  check_finite("cos_min_ratio", options.cos_min_ratio);
  if (options.kind == ScheduleKind::kWarmup) return;
  HYDROFOIL_CHECK_ARG(options.total_num_steps.has_value(), kName, "total_num_steps: got none, expected a number");
  check_at_least("total_num_steps", *options.total_num_steps, 1);
}

void validate_cycle(const ScheduleOptions& options) {
  HYDROFOIL_CHECK_ARG(options.cycle_min_lr.has_value(), kName, "cycle_min_lr: got none, expected a number");
  HYDROFOIL_CHECK_ARG(options.cycle_max_lr.has_value(), kName, "cycle_max_lr: got none, expected a number");
  check_finite("cycle_min_lr", *options.cycle_min_lr);
  check_finite("cycle_max_lr", *options.cycle_max_lr);
  check_finite("decay_lr_rate", options.decay_lr_rate);
  check_finite("cycle_min_mom", options.cycle_min_mom);
  check_finite("cycle_max_mom", options.cycle_max_mom);
  check_finite("decay_mom_rate", options.decay_mom_rate);
  check_at_least("cycle_first_step_size", options.cycle_first_step_size, 1);
  check_at_least("cycle_second_step_size", options.cycle_second_step_size.value_or(0), 0);
  check_at_least("cycle_first_stair_count", options.cycle_first_stair_count, 0);
  check_at_least("cycle_second_stair_count", options.cycle_second_stair_count.value_or(0), 0);
  check_at_least("decay_step_size", options.decay_step_size, 0);
}

}  // namespace

ScheduleKind parse_schedule_kind(std::string_view name) {
  static const std::vector<std::string> kNames{"WarmupLR", "WarmupDecayLR", "WarmupCosineLR", "OneCycle",
                                               "LRRangeTest"};
  return static_cast<ScheduleKind>(index_of_name("parse_schedule_kind", "schedule", name, kNames));
}

WarmupType parse_warmup_type(std::string_view name) {
  static const std::vector<std::string> kNames{"log", "linear"};
  return static_cast<WarmupType>(index_of_name("parse_warmup_type", "warmup_type", name, kNames));
}

void ScheduleOptions::validate(size_t num_groups) const {
  check_at_least("last_batch_iteration", last_batch_iteration, -1);
  switch (kind) {
    case ScheduleKind::kWarmup:
    case ScheduleKind::kWarmupDecay:
    case ScheduleKind::kWarmupCosine:
      validate_warmup(*this, num_groups);
      break;
    case ScheduleKind::kOneCycle:
      validate_cycle(*this);
      break;
    case ScheduleKind::kLrRangeTest:
      check_per_group("lr_range_test_min_lr", lr_range_test_min_lr, num_groups);
      check_at_least("lr_range_test_step_size", lr_range_test_step_size, 1);
      check_finite("lr_range_test_step_rate", lr_range_test_step_rate);
      break;
  }
}

LrSchedule::LrSchedule(ScheduleOptions options, std::vector<double> base_lrs)
    : options_(std::move(options)),
      base_lrs_(std::move(base_lrs)),
      last_batch_iteration_(options_.last_batch_iteration) {
  HYDROFOIL_CHECK_ARG(!base_lrs_.empty(), kName, "parameter groups: got none, expected at least one");
  options_.validate(base_lrs_.size());
  if (options_.warmup_max_lr.empty()) {
    const bool is_decay = options_.kind == ScheduleKind::kWarmupDecay;
    options_.warmup_max_lr = is_decay ? std::vector<double>{kDecayDefaultMaxLr} : base_lrs_;
  }
  options_.warmup_num_steps = std::max<int64_t>(options_.warmup_num_steps, 2);
  const bool decays = options_.kind == ScheduleKind::kWarmupDecay || options_.kind == ScheduleKind::kWarmupCosine;
  if (decays && *options_.total_num_steps < options_.warmup_num_steps) {
    log_warning("[", kName, "] total_num_steps ", *options_.total_num_steps, " is less than warmup_num_steps ",
                options_.warmup_num_steps);
  }
}

ScheduleValues LrSchedule::values_at(int64_t iteration) const {
  HYDROFOIL_CHECK_ARG(iteration >= -1, kName, "iteration: got ", iteration, ", expected at least -1");
  switch (options_.kind) {
    case ScheduleKind::kWarmup:
    case ScheduleKind::kWarmupDecay:
      return warmup_values(iteration);
    case ScheduleKind::kWarmupCosine:
      return cosine_values(iteration);
    case ScheduleKind::kOneCycle:
      return cycle_values(iteration);
    case ScheduleKind::kLrRangeTest:
      return range_test_values(iteration);
  }
  HYDROFOIL_ASSERT(false, "unknown schedule kind");
}

ScheduleValues LrSchedule::step(std::optional<int64_t> iteration) {
  set_last_batch_iteration(iteration.value_or(last_batch_iteration_ + 1));
  return values();
}

void LrSchedule::set_last_batch_iteration(int64_t iteration) {
  HYDROFOIL_CHECK_ARG(iteration >= -1, kName, "iteration: got ", iteration, ", expected at least -1");
  last_batch_iteration_ = iteration;
}

// The fraction of the warm-up; 1 after it.
double LrSchedule::warmup_gamma(int64_t iteration) const {
  if (iteration >= options_.warmup_num_steps) return 1.0;
  const auto steps = static_cast<double>(options_.warmup_num_steps);
  if (options_.warmup_type == WarmupType::kLinear) return static_cast<double>(iteration) / steps;
  return 1.0 / std::log(steps) * std::log(static_cast<double>(iteration + 1));
}

ScheduleValues LrSchedule::warmup_values(int64_t iteration) const {
  double gamma = iteration < 0 ? 0.0 : warmup_gamma(iteration);
  if (options_.kind == ScheduleKind::kWarmupDecay && iteration >= options_.warmup_num_steps) {
    const auto total = static_cast<double>(*options_.total_num_steps);
    const double decay_steps = std::max(1.0, total - static_cast<double>(options_.warmup_num_steps));
    gamma = std::max(0.0, (total - static_cast<double>(iteration)) / decay_steps);
  }
  ScheduleValues values;
  for (size_t group = 0; group < base_lrs_.size(); ++group) {
    const double min_lr = of_group(options_.warmup_min_lr, group);
    values.lr.push_back(min_lr + (of_group(options_.warmup_max_lr, group) - min_lr) * gamma);
  }
  return values;
}

ScheduleValues LrSchedule::cosine_values(int64_t iteration) const {
  double ratio = 0.0;
  if (iteration >= options_.warmup_num_steps) {
    const auto decay_steps =
        static_cast<double>(std::max<int64_t>(1, *options_.total_num_steps - options_.warmup_num_steps));
    // Past its end the schedule stays at the minimum instead of going up again.
    const double progress = std::min(1.0, static_cast<double>(iteration - options_.warmup_num_steps + 1) / decay_steps);
    const double cosine = (1 + std::cos(std::numbers::pi * progress)) / 2;
    ratio = std::max(0.0, options_.cos_min_ratio + (1.0 - options_.cos_min_ratio) * cosine);
  } else if (iteration >= 0) {
    ratio = options_.warmup_min_ratio + warmup_gamma(iteration) * (1.0 - options_.warmup_min_ratio);
  }
  ScheduleValues values;
  for (const double lr : base_lrs_) values.lr.push_back(lr * ratio);
  return values;
}

// Height of the triangle, 0 to 1, for the batch after `iteration`.
double LrSchedule::cycle_scale(int64_t iteration) const {
  const auto first = static_cast<double>(options_.cycle_first_step_size);
  const auto second = static_cast<double>(options_.cycle_second_step_size.value_or(options_.cycle_first_step_size));
  const double total = first + second;
  const auto batch = static_cast<double>(iteration + 1);
  const double ratio = first / total;
  const double x = 1.0 + batch / total - std::floor(1 + batch / total);
  const bool rises = x <= ratio;
  const int64_t stairs = rises ? options_.cycle_first_stair_count
                               : options_.cycle_second_stair_count.value_or(options_.cycle_first_stair_count);
  if (stairs == 0) return rises ? x / ratio : (x - 1) / (ratio - 1);
  // From the batch count itself: the quotients above can lie a last bit below a stair.
  const double position = std::fmod(batch, total);
  const auto count = static_cast<double>(stairs);
  const double stair = position <= first ? position * count / first : (total - position) * count / second;
  return std::floor(stair) / count;
}

ScheduleValues LrSchedule::cycle_values(int64_t iteration) const {
  const double min_lr = *options_.cycle_min_lr, max_lr = *options_.cycle_max_lr;
  const int64_t total =
      options_.cycle_first_step_size + options_.cycle_second_step_size.value_or(options_.cycle_first_step_size);
  double lr = min_lr, momentum = options_.cycle_max_mom;
  if (iteration < 0) {
    momentum = options_.cycle_min_mom;
  } else if (iteration < total) {
    const double scale = cycle_scale(iteration);
    lr = min_lr + (max_lr - min_lr) * scale;
    momentum = options_.cycle_max_mom - (options_.cycle_max_mom - options_.cycle_min_mom) * scale;
  } else if (options_.decay_step_size > 0) {
    const double interval = static_cast<double>(iteration - total + 1) / static_cast<double>(options_.decay_step_size);
    lr = min_lr / (1 + options_.decay_lr_rate * interval);
    momentum = options_.cycle_max_mom * (1 + options_.decay_mom_rate * interval);
  }
  ScheduleValues values{.lr = std::vector<double>(base_lrs_.size(), lr)};
  if (options_.cycle_momentum) {
    values.momentum = momentum;
    values.beta2 = kCycleBeta2;
  }
  return values;
}

ScheduleValues LrSchedule::range_test_values(int64_t iteration) const {
  double interval = static_cast<double>(iteration + 1) / static_cast<double>(options_.lr_range_test_step_size);
  if (options_.lr_range_test_staircase) interval = std::floor(interval);
  const double increase = 1 + options_.lr_range_test_step_rate * interval;
  ScheduleValues values;
  for (size_t group = 0; group < base_lrs_.size(); ++group) {
    values.lr.push_back(of_group(options_.lr_range_test_min_lr, group) * increase);
  }
  return values;
}

}  // namespace hydrofoil::optim
