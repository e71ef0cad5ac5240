#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "hydrofoil/config/field.h"
#include "hydrofoil/config/resolver.h"

namespace hydrofoil::optim {

// The section `fp16`: loss scaling as DeepSpeed does it.
struct Fp16Options {
  bool enabled = false;
  bool auto_cast = false;               // floating-point inputs of forward are cast to fp16
  double loss_scale = 0.0;              // 0: dynamic
  int64_t initial_scale_power = 16;     // the dynamic scale starts at 2^this
  int64_t loss_scale_window = 1000;     // good steps before the scale doubles
  int64_t hysteresis = 2;               // overflows before the scale halves
  bool consecutive_hysteresis = false;  // a good step refills the hysteresis
  double min_loss_scale = 1.0;          // the scale never falls below

  [[nodiscard]] bool dynamic() const { return loss_scale == 0.0; }
  // Throws InvalidArgument where a value lies outside its range.
  void validate() const;
};

// The section `bf16`: bf16 model, fp32 master weights, no loss scaling.
struct Bf16Options {
  bool enabled = false;
  bool check_grad_overflow = true;     // a step with inf or NaN gradients is skipped
  bool bf16_optimizer_states = false;  // see EngineOptions::has_bf16_states
};

// Hyperparameters of the optimizers that run as fused kernels; each type reads its own.
struct OptimizerParams {
  double lr = 1e-3;
  std::vector<double> betas = {0.9, 0.999};
  double eps = 1e-8;
  double weight_decay = 0.0;
  double momentum = 0.0;
  double dampening = 0.0;
  bool nesterov = false;
  bool bias_correction = true;
  bool adam_w_mode = true;                    // type "Adam" decays as AdamW unless this is false, as in DeepSpeed
  std::optional<bool> fp32_optimizer_states;  // none: true, unless bf16.bf16_optimizer_states says otherwise
};

// The section `optimizer`.
struct OptimizerOptions {
  std::string type;        // "Adam", "AdamW", "SGD", "Adagrad", "Lion" or a torch.optim name; empty: none in the config
  bool native = false;     // one of the five: fused kernels run it with `params`
  OptimizerParams params;  // meaningful where native
  std::string params_json = "{}";  // keyword arguments as JSON; "auto" is resolved
};

// Parameters of DeepSpeed's schedules; each type reads its own.
struct SchedulerParams {
  int64_t last_batch_iteration = -1;
  std::vector<double> lr_range_test_min_lr = {1e-3};  // one, or one a parameter group
  int64_t lr_range_test_step_size = 2000;
  double lr_range_test_step_rate = 1.0;
  bool lr_range_test_staircase = false;
  double cycle_min_lr = 0.0;
  double cycle_max_lr = 0.0;
  double decay_lr_rate = 0.0;
  int64_t cycle_first_step_size = 2000;
  std::optional<int64_t> cycle_second_step_size;  // none: as the first
  int64_t cycle_first_stair_count = 0;
  std::optional<int64_t> cycle_second_stair_count;  // none: as the first
  int64_t decay_step_size = 0;
  bool cycle_momentum = true;
  double cycle_min_mom = 0.8;
  double cycle_max_mom = 0.9;
  double decay_mom_rate = 0.0;
  std::vector<double> warmup_min_lr = {0.0};         // one, or one a parameter group
  std::optional<std::vector<double>> warmup_max_lr;  // none: the optimizer's lr
  int64_t warmup_num_steps = 1000;
  std::string warmup_type = "log";  // or "linear"
  int64_t total_num_steps = 0;
  double warmup_min_ratio = 0.0;
  double cos_min_ratio = 1e-4;
};

// The section `scheduler`.
struct SchedulerOptions {
  std::string type;        // one of DeepSpeed's five or a torch.optim.lr_scheduler name; empty: none in the config
  bool native = false;     // one of the five: `params` hold its parameters
  SchedulerParams params;  // meaningful where native
  std::string params_json = "{}";  // keyword arguments as JSON; "auto" is resolved
};

[[nodiscard]] const config::Section& fp16_section();
[[nodiscard]] const config::Section& bf16_section();
[[nodiscard]] const config::Section& optimizer_section();
[[nodiscard]] const config::Section& scheduler_section();

// (type, keys of its `params`) of every type that runs natively, for the reference.
[[nodiscard]] const std::vector<std::pair<std::string, config::Section>>& optimizer_params_sections();
[[nodiscard]] const std::vector<std::pair<std::string, config::Section>>& scheduler_params_sections();

// Resolves the section (nullptr: absent) with the parameter table of its type. Throws InvalidArgument for an unknown
// type (with the nearest name), a type that is not yet supported, and whatever Resolver::resolve throws.
[[nodiscard]] OptimizerOptions resolve_optimizer(config::Resolver& resolver, const config::Value* section);

// The same for the schedule.
[[nodiscard]] SchedulerOptions resolve_scheduler(config::Resolver& resolver, const config::Value* section);

}  // namespace hydrofoil::optim
