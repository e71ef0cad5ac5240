#include "hydrofoil/optim/schedule_options.h"

namespace hydrofoil::optim {

ScheduleOptions schedule_options(const SchedulerOptions& options) {
  const SchedulerParams& params = options.params;
  ScheduleOptions result;
  result.kind = parse_schedule_kind(options.type);
  result.last_batch_iteration = params.last_batch_iteration;
  result.warmup_min_lr = params.warmup_min_lr;
  if (params.warmup_max_lr) result.warmup_max_lr = *params.warmup_max_lr;
  result.warmup_num_steps = params.warmup_num_steps;
  result.warmup_type = parse_warmup_type(params.warmup_type);
  result.total_num_steps = params.total_num_steps;
  result.warmup_min_ratio = params.warmup_min_ratio;
  result.cos_min_ratio = params.cos_min_ratio;
  result.cycle_min_lr = params.cycle_min_lr;
  result.cycle_max_lr = params.cycle_max_lr;
  result.decay_lr_rate = params.decay_lr_rate;
  result.cycle_first_step_size = params.cycle_first_step_size;
  result.cycle_second_step_size = params.cycle_second_step_size;
  result.cycle_first_stair_count = params.cycle_first_stair_count;
  result.cycle_second_stair_count = params.cycle_second_stair_count;
  result.decay_step_size = params.decay_step_size;
  result.cycle_momentum = params.cycle_momentum;
  result.cycle_min_mom = params.cycle_min_mom;
  result.cycle_max_mom = params.cycle_max_mom;
  result.decay_mom_rate = params.decay_mom_rate;
  result.lr_range_test_min_lr = params.lr_range_test_min_lr;
  result.lr_range_test_step_size = params.lr_range_test_step_size;
  result.lr_range_test_step_rate = params.lr_range_test_step_rate;
  result.lr_range_test_staircase = params.lr_range_test_staircase;
  return result;
}

}  // namespace hydrofoil::optim
