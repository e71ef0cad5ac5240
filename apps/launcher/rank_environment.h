#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "apps/launcher/run_options.h"

namespace hydrofoil::launcher {

// What the ranks of one run share, with every default filled in.
struct RunPlan {
  int num_ranks = 1;
  std::string master_addr;
  int master_port = 0;
  std::vector<int> cores;  // those the run may use, ascending
  bool bind_cores = false;
  std::optional<int64_t> omp_num_threads;   // nullopt: OMP_NUM_THREADS is set already
  std::optional<int64_t> terminal_columns;  // set where rank 0's output reaches a terminal as it is
};

// A free TCP port, kept bound (not listening) for the life of the object. No other launcher gets the port meanwhile,
// while a server that sets SO_REUSEADDR, as torch's TCPStore does, can listen on it.
class ReservedPort {
 public:
  // Throws SystemError where no port is free.
  ReservedPort();
  ~ReservedPort();
  ReservedPort(const ReservedPort&) = delete;
  ReservedPort& operator=(const ReservedPort&) = delete;
  [[nodiscard]] int port() const { return port_; }

 private:
  int socket_ = -1;
  int port_ = 0;
};

// Entries of CUDA_VISIBLE_DEVICES where that is set, else the number of /dev/nvidia<digits>.
[[nodiscard]] int64_t count_gpus();

// count_gpus(), or 1 where there is none.
[[nodiscard]] int64_t default_num_ranks();

// Cores that this process may run on, ascending.
[[nodiscard]] std::vector<int> allowed_cores();

// The slice of `cores` for one rank: even, contiguous, never empty (ranks share cores where there are fewer cores).
[[nodiscard]] std::vector<int> cores_of_rank(const std::vector<int>& cores, int num_ranks, int rank);

// Fills in the defaults; `port` is that of MASTER_PORT. Throws InvalidArgument where core_list names a core that this
// process may not use.
[[nodiscard]] RunPlan make_plan(const RunOptions& options, int port, std::optional<int64_t> terminal_columns);

// The variables that the launcher sets for one rank, in addition to its own environment.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> rank_variables(const RunPlan& plan, int rank);

// `inherited` ("NAME=value") with `variables` put in place of those of the same name.
[[nodiscard]] std::vector<std::string> merge_environment(
    const std::vector<std::string>& inherited, const std::vector<std::pair<std::string, std::string>>& variables);

// Program and arguments of one rank. `python` is the interpreter.
[[nodiscard]] std::vector<std::string> rank_command(const RunOptions& options, const std::string& python, int rank);

// $HYDROFOIL_PYTHON, else an executable python3 beside `program_paths` (in order), else "python3" for PATH to find.
[[nodiscard]] std::string find_python(const std::vector<std::string>& program_paths);

// One line for the user: ranks, address, threads.
[[nodiscard]] std::string describe_plan(const RunPlan& plan);

}  // namespace hydrofoil::launcher
