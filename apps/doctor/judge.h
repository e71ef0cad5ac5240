#pragma once

#include <string>
#include <vector>

#include "apps/doctor/finding.h"
#include "apps/doctor/host_facts.h"
#include "apps/doctor/python_facts.h"

namespace hydrofoil::doctor {

// What this program was built as.
struct Program {
  std::string version;
  std::string torch_version;  // of the build: "2.13.0"
  std::string path;
};

// Program, Python, torch, the package; GPUs and what ranks talk through.
[[nodiscard]] std::vector<Finding> judge_python(const Program& program, const PythonFacts& python,
                                                const HostFacts& host);

// Processor, memory, limits, disks.
[[nodiscard]] std::vector<Finding> judge_host(const HostFacts& host);

}  // namespace hydrofoil::doctor
