#include <algorithm>
#include <cmath>

#include "apps/doctor/judge.h"
#include "hydrofoil/base/error.h"
#include "hydrofoil/plan/byte_size.h"

namespace hydrofoil::doctor {
namespace {

using hydrofoil::detail::concat;
using plan::format_bytes;

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kGiB = int64_t{1} << 30;

std::string counted(int64_t count, const std::string& noun) { return concat(count, " ", noun, count == 1 ? "" : "s"); }

void judge_kernels(const HostFacts& host, Section& section) {
  std::string flags;
  for (const auto& flag : host.matrix_flags) flags += (flags.empty() ? " with " : ", ") + flag;
  section.ok("model", (host.cpu_name.empty() ? "unknown" : host.cpu_name) + flags);
  const std::string offered = "this processor offers " + host.detected_isa;
  if (!host.isa_error.empty()) {
    section.problem("kernels", host.isa_error, "unset HYDROFOIL_CPU_ISA: the best set is then found at run time");
  } else if (host.used_isa != host.detected_isa) {
    section.warning("kernels", concat(host.used_isa, " by HYDROFOIL_CPU_ISA; ", offered),
                    "unset HYDROFOIL_CPU_ISA, unless you compare instruction sets: the results have the same bits");
  } else if (host.used_isa == "scalar") {
    section.warning("kernels", "scalar: this processor offers neither AVX2 nor AVX-512",
                    "on a virtual machine, ask for a CPU model with AVX2; the optimizer step is several times slower");
  } else {
    section.ok("kernels", host.used_isa + ", found at run time");
  }
}

void judge_cores(const HostFacts& host, Section& section) {
  const std::string value = concat(host.num_allowed_cores, " of ", counted(host.num_cores, "core"), " may be used");
  const auto cores = static_cast<double>(host.num_allowed_cores);
  if (host.cpu_time_limit && *host.cpu_time_limit < cores) {
    section.warning("cores", concat(value, ", but the control group gives the time of ", *host.cpu_time_limit),
                    concat("keep ranks x OMP_NUM_THREADS at or below ",
                           std::max<int64_t>(1, std::llround(std::floor(*host.cpu_time_limit))),
                           ": threads beyond it stand still for a part of each 100 ms; or raise the limit (docker run "
                           "--cpus, Kubernetes limits.cpu)"));
  } else {
    section.ok("cores", value);
  }
  if (host.omp_num_threads) {
    const std::string threads = concat("OMP_NUM_THREADS=", *host.omp_num_threads);
    if (*host.omp_num_threads > host.num_allowed_cores) {
      section.warning("threads", concat(threads, " on ", counted(host.num_allowed_cores, "core")),
                      "unset OMP_NUM_THREADS: hydrofoil run shares the cores among the ranks");
    } else {
      section.ok("threads", threads + " for each rank, as set");
    }
  } else {
    section.ok("threads", "hydrofoil run shares the cores among the ranks");
  }
  section.ok("NUMA", host.num_numa_nodes == 1
                         ? "one node"
                         : concat(host.num_numa_nodes, " nodes; hydrofoil run --bind-cores keeps ranks on their own"));
}

void judge_memory(const HostFacts& host, Section& section) {
  const bool limited = host.memory_limit_bytes < host.memory_bytes;
  const int64_t available = std::min(host.memory_available_bytes, host.memory_limit_bytes);
  const std::string value =
      concat(format_bytes(host.memory_bytes), limited ? ", of which the control group gives " : ", ",
             limited ? format_bytes(host.memory_limit_bytes) + "; " : "", format_bytes(available), " available");
  if (available < kGiB) {
    section.warning(
        "memory", value,
        "end other programs, or raise the limit (docker run --memory); hydrofoil plan says what a job needs");
  } else {
    section.ok("memory", value);
  }
  if (host.memfd.works) {
    section.ok("shared memory", "ranks of this host share memory (memfd)");
  } else {
    section.warning("shared memory", host.memfd.reason,
                    "ranks talk through Gloo instead, 5 to 30 times slower; allow memfd_create and its seals "
                    "(the container's seccomp profile, or a kernel older than 3.17)");
  }
  const DiskSpace& shm = host.shared_memory;
  const std::string workers = "workers of torch's DataLoader pass batches through it, Hydrofoil does not";
  if (!shm.error.empty()) {
    section.warning("/dev/shm", shm.error, "mount a tmpfs there, or use DataLoader(num_workers=0): " + workers);
  } else if (shm.total_bytes < kGiB) {
    section.warning(
        "/dev/shm", format_bytes(shm.total_bytes),
        concat(workers, "; enlarge it (docker run --shm-size=8g, Kubernetes: an emptyDir with medium Memory)"));
  } else {
    section.ok("/dev/shm", concat(format_bytes(shm.total_bytes), ", ", format_bytes(shm.free_bytes), " free"));
  }
}

void judge_huge_pages(const HostFacts& host, Section& section) {
  if (host.huge_pages == "never") {
    section.warning("huge pages", "never",
                    "one thread reads large buffers a third slower: echo madvise | sudo tee "
                    "/sys/kernel/mm/transparent_hugepage/enabled");
  } else {
    section.ok("huge pages", host.huge_pages.empty() ? "this kernel does not say" : host.huge_pages);
  }
  if (host.shared_huge_pages.works || !host.memfd.works) {
    section.ok("of shared memory", host.shared_huge_pages.works ? "given when asked for" : "no shared memory");
  } else {
    section.warning("of shared memory", host.shared_huge_pages.reason,
                    "gradients between ranks are copied a fifth slower; Linux 6.1 and later give them");
  }
}

void judge_limits(const HostFacts& host, Section& section) {
  if (host.open_files && *host.open_files < 1024) {
    const Level level = *host.open_files < 256 ? Level::kProblem : Level::kWarning;
    section.add("open files", level, concat(*host.open_files, " for a process"), "ulimit -n 65536");
  } else {
    section.ok("open files", host.open_files ? std::to_string(*host.open_files) + " for a process" : "unlimited");
  }
  section.ok("locked memory", concat(host.locked_bytes ? format_bytes(*host.locked_bytes) : "unlimited",
                                     "; nothing in this version locks any"));
  const bool limited = host.address_bytes || host.file_bytes;
  if (limited) {
    section.warning("address space",
                    concat(host.address_bytes ? format_bytes(*host.address_bytes) + " of addresses" : "",
                           host.address_bytes && host.file_bytes ? ", " : "",
                           host.file_bytes ? "files up to " + format_bytes(*host.file_bytes) : ""),
                    "unset the limits (ulimit -v unlimited; ulimit -f unlimited): ranks then share gradients and "
                    "parameters in place, without copies");
  } else {
    section.ok("address space", "unlimited");
  }
}

void judge_disk(const DiskSpace& disk, const std::string& name, const std::string& use, Section& section) {
  const std::string value = disk.error.empty() ? concat(disk.path, ": ", format_bytes(disk.free_bytes), " free")
                                               : disk.path + ": " + disk.error;
  if (!disk.error.empty() || disk.free_bytes < 64 * kMiB) {
    section.problem(name, value, "free space there; " + use);
  } else if (disk.free_bytes < kGiB) {
    section.warning(name, value, "free space there; " + use);
  } else {
    section.ok(name, value);
  }
}

void judge_disks(const HostFacts& host, Section& section) {
  const std::string use = "temporary files of Python and of compilers go there; or set TMPDIR to another folder";
  if (host.temporary.error.empty() && !host.temporary_writable.works) {
    section.problem("temporary", host.temporary.path + ": " + host.temporary_writable.reason,
                    "make it writable, or set TMPDIR to a folder that is");
  } else {
    judge_disk(host.temporary, "temporary", use, section);
  }
  judge_disk(host.working, "this folder", "checkpoints may go here: 12 to 16 bytes a parameter with Adam", section);
  section.ok("io_uring", host.io_uring.works ? "allowed; nothing in this version uses it"
                                             : host.io_uring.reason + "; nothing in this version uses it");
}

}  // namespace

std::vector<Finding> judge_host(const HostFacts& host) {
  Section processor("Processor");
  judge_kernels(host, processor);
  judge_cores(host, processor);
  Section memory("Memory");
  judge_memory(host, memory);
  judge_huge_pages(host, memory);
  Section limits("Limits");
  judge_limits(host, limits);
  Section disks("Disks");
  judge_disks(host, disks);
  std::vector<Finding> all;
  for (const Section* section : {&processor, &memory, &limits, &disks}) {
    all.insert(all.end(), section->findings().begin(), section->findings().end());
  }
  return all;
}

}  // namespace hydrofoil::doctor
