#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "apps/doctor/probes.h"

namespace hydrofoil::doctor {

struct DiskSpace {
  std::string path;
  int64_t total_bytes = 0;
  int64_t free_bytes = 0;  // for this user
  std::string error;       // why it cannot be asked; empty: it was
};

// The machine as this process sees it. No value is judged here.
struct HostFacts {
  std::string cpu_name;
  std::vector<std::string> matrix_flags;  // "avx512_bf16", "avx512_vnni", "amx_bf16": what torch's products may use
  std::string detected_isa;               // of the kernels: "avx512"
  std::string used_isa;                   // HYDROFOIL_CPU_ISA may be lower
  std::string isa_error;                  // HYDROFOIL_CPU_ISA is wrong
  int64_t num_cores = 0;                  // online
  int64_t num_allowed_cores = 0;          // affinity and cpusets
  std::optional<double> cpu_time_limit;   // cores' worth of time of the control groups
  std::optional<int64_t> omp_num_threads;
  int64_t num_numa_nodes = 1;

  int64_t memory_bytes = 0;            // physical
  int64_t memory_limit_bytes = 0;      // of the control groups, or the physical memory
  int64_t memory_available_bytes = 0;  // of the host, without swapping
  std::string huge_pages;              // "always", "madvise", "never"; empty: unknown
  DiskSpace shared_memory;             // /dev/shm
  Probe memfd;
  Probe shared_huge_pages;

  // Soft limits; nullopt: unlimited.
  std::optional<int64_t> open_files;
  std::optional<int64_t> locked_bytes;
  std::optional<int64_t> address_bytes;
  std::optional<int64_t> file_bytes;

  Probe io_uring;
  DiskSpace temporary;  // $TMPDIR or /tmp
  Probe temporary_writable;
  DiskSpace working;  // where the command was called

  int64_t num_gpus = 0;                     // visible device files, or entries of CUDA_VISIBLE_DEVICES
  std::optional<std::string> gpu_driver;    // version of NVIDIA's kernel module
  std::optional<std::string> visible_gpus;  // CUDA_VISIBLE_DEVICES
  std::optional<std::string> mpirun;        // path
  bool built_with_mpi = false;

  std::vector<std::pair<std::string, std::string>> settings;  // environment variables HYDROFOIL_*
};

// Reads and asks everything. `root`: where /proc and /sys are, for tests. Throws SystemError where /proc/meminfo cannot
// be read.
[[nodiscard]] HostFacts examine_host(const std::string& root = "");

}  // namespace hydrofoil::doctor
