#include "hydrofoil/engine/profiling_options.h"

#include <algorithm>
#include <utility>

#include "hydrofoil/base/error.h"
#include "hydrofoil/base/nearest.h"

namespace hydrofoil::engine {
namespace {

using config::field;
using config::Section;

// What prof_ops may say, and the operation that it means: ours and DeepSpeed's names.
const std::vector<std::pair<std::string, std::string>>& op_names() {
  static const std::vector<std::pair<std::string, std::string>> names = {
      {"all_reduce", "all_reduce"},
      {"reduce_scatter", "reduce_scatter"},
      {"reduce_scatter_tensor", "reduce_scatter"},
      {"all_gather", "all_gather"},
      {"all_gather_into_tensor", "all_gather"},
      {"broadcast", "broadcast"},
      {"all_to_all", "all_to_all"},
      {"all_to_all_single", "all_to_all"},
      {"send", "send"},
      {"isend", "send"},
      {"recv", "recv"},
      {"irecv", "recv"},
      {"barrier", "barrier"},
      {"monitored_barrier", "barrier"},
      // Calls of scripts alone.
      {"gather", "gather"},
      {"scatter", "scatter"},
      {"reduce", "reduce"},
      {"all_gather_object", "all_gather_object"},
      {"broadcast_object_list", "broadcast_object_list"},
  };
  return names;
}

}  // namespace

std::vector<std::string> CommsLoggerOptions::counted_ops() const {
  std::vector<std::string> ops;
  if (prof_all) return ops;
  for (const auto& [name, op] : op_names()) {
    if (std::find(prof_ops.begin(), prof_ops.end(), name) != prof_ops.end()) ops.push_back(op);
  }
  return ops;
}

void CommsLoggerOptions::validate() const {
  std::vector<std::string> known;
  for (const auto& [name, op] : op_names()) known.push_back(name);
  for (const std::string& name : prof_ops) {
    HYDROFOIL_CHECK_ARG(std::find(known.begin(), known.end(), name) != known.end(), "config",
                        "comms_logger.prof_ops: got '", name, "', which is no operation; the nearest is '",
                        nearest_name(name, known), "'");
  }
  HYDROFOIL_CHECK_ARG(!enabled || prof_all || !prof_ops.empty(), "config",
                      "comms_logger.prof_ops: got none with prof_all false, expected at least one operation: nothing "
                      "would be counted");
}

Section comms_logger_section() {
  Section section;
  section.doc =
      "Counts the collectives of the engine and of hydrofoil.comm; hydrofoil.comm.log_summary() prints them "
      "(docs/profiling.md)";
  section.lax = true;
  section.fields = {
      field("enabled", &CommsLoggerOptions::enabled, "count them"),
      field("prof_all", &CommsLoggerOptions::prof_all, "every operation, whatever prof_ops says"),
      field("prof_ops", &CommsLoggerOptions::prof_ops, "with prof_all false: the operations that are counted"),
      field("verbose", &CommsLoggerOptions::verbose, "log each operation at its end"),
      field("debug", &CommsLoggerOptions::debug, "a row for each unit that moves, not for each message size alone")
          .with_note("DeepSpeed adds the name of the calling function"),
  };
  return section;
}

Section flops_profiler_section() {
  Section section;
  section.doc = "Profiles FLOPs, parameters and latency of each module in one step (docs/profiling.md)";
  section.fields = {
      field("enabled", &FlopsProfilerOptions::enabled, "profile the step `profile_step`"),
      config::accepted("recompute_fwd_factor", 0.0,
                       "the backward is counted as it runs, what checkpoints compute once more included"),
      field("profile_step", &FlopsProfilerOptions::profile_step,
            "optimizer steps that come before the one that is profiled")
          .at_least(0),
      field("module_depth", &FlopsProfilerOptions::module_depth, "depth of the aggregated profile; -1: the deepest")
          .at_least(-1),
      field("top_modules", &FlopsProfilerOptions::top_modules, "modules that the aggregated profile lists a depth")
          .at_least(1),
      field("detailed", &FlopsProfilerOptions::detailed, "print the tree of modules too"),
      field("output_file", &FlopsProfilerOptions::output_file, "where rank 0 writes the profile; none: to its output"),
  };
  return section;
}

Section trace_section() {
  Section section;
  section.doc = "Writes what all ranks do in some steps as a file for ui.perfetto.dev (docs/profiling.md)";
  section.fields = {
      field("path", &TraceOptions::path, "of the file that rank 0 writes; empty: no trace is taken"),
      field("first_step", &TraceOptions::first_step, "optimizer step that is traced first, counted from 1").at_least(1),
      field("num_steps", &TraceOptions::num_steps, "steps that are traced, one after the other").at_least(1),
  };
  return section;
}

}  // namespace hydrofoil::engine
