#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "hydrofoil/config/field.h"

namespace hydrofoil::engine {

// The section `comms_logger`.
struct CommsLoggerOptions {
  bool enabled = false;
  bool prof_all = true;               // count every operation, whatever prof_ops says
  std::vector<std::string> prof_ops;  // the operations that are counted
  bool verbose = false;               // log each operation
  bool debug = false;                 // a row for each unit too

  // The operations to count, as comm::op_kind_name() names them; empty: all.
  [[nodiscard]] std::vector<std::string> counted_ops() const;
  // Throws InvalidArgument for a name in prof_ops that is none of an operation.
  void validate() const;
};

// The section `flops_profiler`.
struct FlopsProfilerOptions {
  bool enabled = false;
  int64_t profile_step = 1;   // optimizer steps that come before the one that is profiled
  int64_t module_depth = -1;  // of the aggregated profile; -1: the deepest
  int64_t top_modules = 1;
  bool detailed = true;                    // print the module tree too
  std::optional<std::string> output_file;  // none: standard output
};

// The section `hydrofoil.trace`.
struct TraceOptions {
  std::string path;        // of the file; "": no trace is taken
  int64_t first_step = 3;  // optimizer step that is traced first, from 1
  int64_t num_steps = 1;
};

[[nodiscard]] config::Section comms_logger_section();
[[nodiscard]] config::Section flops_profiler_section();
[[nodiscard]] config::Section trace_section();

}  // namespace hydrofoil::engine
