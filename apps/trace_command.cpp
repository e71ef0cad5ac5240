#include "apps/trace_command.h"

#include <vector>

#include "apps/launcher/command_line.h"
#include "hydrofoil/storage/file.h"
#include "hydrofoil/trace/summary.h"

namespace hydrofoil {
namespace {

constexpr int64_t kMaxBytes = int64_t{1} << 30;
constexpr const char* kFooter = R"(A job writes the file where its ds_config.json says so, for step 3 here:
  "hydrofoil": {"trace": {"path": "trace.json", "first_step": 3, "num_steps": 1}}

ui.perfetto.dev and chrome://tracing show it as a timeline: a process a rank, a row each for the steps, for what the rank
computes and waits for, and for the collectives of its two channels. See docs/profiling.md.

Example:
  hydrofoil trace trace.json

Exit codes: 0 done; 2 wrong use, or a file that is no such trace, with the reason; 126 the file cannot be read.
)";

}  // namespace

TraceArguments parse_trace_arguments(std::span<const std::string> arguments) {
  TraceArguments result;
  launcher::CommandLine line("hydrofoil trace",
                             "Show where the time of a step goes: for each rank and row of a trace, the "
                             "milliseconds of each kind of event, without what is nested in it.");
  line.add_positional("FILE", &result.path, "trace that a job wrote");
  line.set_usage("hydrofoil trace FILE");
  line.set_footer(kFooter);
  const std::vector<std::string> help = {"--help"};
  result.help = line.parse(arguments.empty() ? std::span<const std::string>(help) : arguments);
  return result;
}

std::string summarize_trace(const TraceArguments& arguments) {
  return trace::summarize(storage::read_file(arguments.path, kMaxBytes), arguments.path);
}

}  // namespace hydrofoil
