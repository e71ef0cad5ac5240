#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace hydrofoil::launcher {

// How the output of the ranks reaches the terminal; see `hydrofoil run --help`.
enum class OutputMode { kAuto, kPrefix, kRaw, kCollect };

// What `hydrofoil run` was asked to do.
struct RunOptions {
  std::optional<int64_t> num_ranks;       // nullopt: default_num_ranks()
  std::string master_addr = "127.0.0.1";  // MASTER_ADDR of the ranks
  std::optional<int64_t> master_port;     // nullopt: a free port
  bool bind_cores = false;                // each rank on its own slice of the cores
  std::vector<int> core_list;             // cores to share out; empty: those this process may use
  bool use_python = true;                 // false: `script` is a program of its own
  bool is_module = false;                 // `script` is a module's name, as for python -m
  bool append_local_rank = false;         // insert --local_rank=N before the arguments
  std::optional<std::string> log_dir;     // also write rank_N.log there
  OutputMode output = OutputMode::kAuto;  // see OutputMode
  double grace_seconds = 5;               // from SIGTERM to SIGKILL when ranks are ended
  bool quiet = false;                     // no line about ranks, port and threads at the start
  std::string script;                     // file, module or program
  std::vector<std::string> arguments;     // passed on as they are
};

struct ParsedRun {
  std::optional<std::string> help;  // set: print it, run nothing
  RunOptions options;
};

// Parses what follows `hydrofoil run`. Own flags end at the first argument that is none (the script); all behind it is
// the script's. DeepSpeed's spellings are understood; those for several hosts are InvalidArgument "not yet supported".
[[nodiscard]] ParsedRun parse_run_arguments(std::span<const std::string> arguments);

// "0-3,8" as {0, 1, 2, 3, 8}. Throws InvalidArgument at anything else, at duplicates and at cores over 4095.
[[nodiscard]] std::vector<int> parse_core_list(const std::string& text);

}  // namespace hydrofoil::launcher
