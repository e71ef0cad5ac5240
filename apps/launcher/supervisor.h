#pragma once

#include <string>
#include <vector>

#include "apps/launcher/rank_environment.h"
#include "apps/launcher/run_options.h"

namespace hydrofoil::launcher {

constexpr int kExitUsage = 2;
constexpr int kExitSystem = 126;

// Starts the ranks, passes signals and output on, and ends all when one fails. Returns the exit code of `hydrofoil
// run`.
//
// Runs in a process of its own (see NOTE [Two processes] in launch.cpp) that has one thread, blocks the signals it
// reads from a signalfd, and is a subreaper. `front_fd` is a pipe that reaches its end when the process in front dies:
// then every descendant is killed at once.
[[nodiscard]] int supervise(const RunOptions& options, const RunPlan& plan, const std::string& python, int front_fd);

}  // namespace hydrofoil::launcher
