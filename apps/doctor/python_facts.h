#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace hydrofoil::doctor {

struct GpuDevice {
  std::string name;
  int64_t memory_bytes = 0;
};

// What the Python that runs the ranks says of itself, of torch and of the package hydrofoil. An error is the
// exception's text, or how the interpreter ended.
struct PythonFacts {
  std::string interpreter;  // as it was called
  std::string error;        // it does not run, or ended on its way
  std::string version;      // "3.11.7"
  std::string executable;

  std::string torch_error;
  std::string torch_version;  // "2.13.0+cpu"
  bool torch_cxx11_abi = true;
  std::string torch_cuda;  // version that it was built with; empty: none
  bool cuda_available = false;
  std::string cuda_error;  // why it is not, where torch says so
  std::vector<GpuDevice> devices;
  std::string nccl;                   // version; empty: not in this torch
  std::vector<std::string> backends;  // of torch.distributed: "gloo", "nccl", "mpi"

  std::string package_error;
  std::string package_version;
  std::string package_path;
};

// Runs `interpreter` and reads what it says. Waits `patience_seconds` for each word: from a network file system, torch
// takes minutes to import. Does not throw for what Python does.
[[nodiscard]] PythonFacts examine_python(const std::string& interpreter, int64_t patience_seconds = 300);

}  // namespace hydrofoil::doctor
