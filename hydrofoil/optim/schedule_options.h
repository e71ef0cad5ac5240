#pragma once

#include "hydrofoil/optim/lr_schedule.h"
#include "hydrofoil/optim/optim_options.h"

namespace hydrofoil::optim {

// The schedule of a config's section `scheduler`. Throws InvalidArgument where its type is none of DeepSpeed's.
[[nodiscard]] ScheduleOptions schedule_options(const SchedulerOptions& options);

}  // namespace hydrofoil::optim
