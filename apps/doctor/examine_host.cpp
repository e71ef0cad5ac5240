#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "apps/doctor/host_facts.h"
#include "apps/launcher/rank_environment.h"
#include "hydrofoil/base/control_groups.h"
#include "hydrofoil/base/cpu_features.h"
#include "hydrofoil/base/environment.h"
#include "hydrofoil/base/error.h"
#include "hydrofoil/memory/memory_limit.h"

namespace hydrofoil::doctor {
namespace {

namespace fs = std::filesystem;

void examine_cpu(const std::string& root, HostFacts& facts) {
  std::ifstream file(root + "/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line) && (facts.cpu_name.empty() || facts.matrix_flags.empty())) {
    const size_t colon = line.find(": ");
    if (colon == std::string::npos) continue;
    if (line.starts_with("model name")) facts.cpu_name = line.substr(colon + 2);
    if (!line.starts_with("flags")) continue;
    std::istringstream words(line.substr(colon + 2));
    for (std::string word; words >> word;) {
      for (const char* flag : {"avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8"}) {
        if (word == flag) facts.matrix_flags.push_back(word);
      }
    }
  }
  facts.detected_isa = cpu_isa_name(detected_cpu_isa());
  try {
    facts.used_isa = cpu_isa_name(cpu_isa());
  } catch (const InvalidArgument& error) {
    facts.isa_error = error.what();
  }
}

void examine_cores(const std::string& root, HostFacts& facts) {
  facts.num_cores = ::sysconf(_SC_NPROCESSORS_ONLN);
  facts.num_allowed_cores = static_cast<int64_t>(launcher::allowed_cores().size());
  facts.cpu_time_limit = cpu_time_limit(root);
  try {
    facts.omp_num_threads = environment_int("OMP_NUM_THREADS");
  } catch (const InvalidArgument&) {  // "4,2": a list for nested regions, which nothing here has
  }
  int64_t nodes = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(root + "/sys/devices/system/node", error)) {
    const std::string name = entry.path().filename().string();
    nodes +=
        name.starts_with("node") && name.size() > 4 && name.find_first_not_of("0123456789", 4) == std::string::npos;
  }
  facts.num_numa_nodes = std::max<int64_t>(nodes, 1);
}

int64_t meminfo_bytes(const std::string& root, const std::string& name) {
  std::ifstream file(root + "/proc/meminfo");
  for (std::string word; file >> word;) {
    int64_t kib = 0;
    if (word == name && file >> kib) return kib * 1024;
  }
  throw SystemError("[hydrofoil doctor] " + root + "/proc/meminfo has no line " + name);
}

// The word in brackets: "always [madvise] never".
std::string selected(const std::string& path) {
  std::ifstream file(path);
  for (std::string word; file >> word;) {
    if (word.size() > 2 && word.front() == '[') return word.substr(1, word.size() - 2);
  }
  return "";
}

DiskSpace disk_space(const std::string& path) {
  DiskSpace space{.path = path};
  struct statvfs status {};
  if (::statvfs(path.c_str(), &status) != 0) {
    space.error = std::strerror(errno);
    return space;
  }
  space.total_bytes = static_cast<int64_t>(status.f_blocks * status.f_frsize);
  space.free_bytes = static_cast<int64_t>(status.f_bavail * status.f_frsize);
  return space;
}

std::optional<int64_t> soft_limit(int resource) {
  rlimit limit{};
  if (::getrlimit(static_cast<__rlimit_resource>(resource), &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
    return std::nullopt;
  }
  return static_cast<int64_t>(limit.rlim_cur);
}

// "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build ...": the first word of numbers.
std::optional<std::string> driver_version(const std::string& root) {
  std::ifstream file(root + "/proc/driver/nvidia/version");
  for (std::string word; file >> word;) {
    if (word.find('.') != std::string::npos && word.find_first_not_of("0123456789.") == std::string::npos) return word;
  }
  return std::nullopt;
}

std::optional<std::string> find_in_path(const std::string& program) {
  std::istringstream folders(environment("PATH").value_or(""));
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string candidate = folder + "/" + program;
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return std::nullopt;
}

std::vector<std::pair<std::string, std::string>> hydrofoil_settings() {
  std::vector<std::pair<std::string, std::string>> settings;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const size_t end = text.find('=');
    if (text.starts_with("HYDROFOIL_") && end != std::string::npos) {
      settings.emplace_back(text.substr(0, end), text.substr(end + 1));
    }
  }
  std::sort(settings.begin(), settings.end());
  return settings;
}

}  // namespace

HostFacts examine_host(const std::string& root) {
  HostFacts facts;
  examine_cpu(root, facts);
  examine_cores(root, facts);
  facts.memory_bytes = meminfo_bytes(root, "MemTotal:");
  facts.memory_available_bytes = meminfo_bytes(root, "MemAvailable:");
  facts.memory_limit_bytes = memory::host_memory_limit(root);
  facts.huge_pages = selected(root + "/sys/kernel/mm/transparent_hugepage/enabled");
  facts.shared_memory = disk_space("/dev/shm");
  facts.memfd = probe_memfd();
  facts.shared_huge_pages = probe_shared_huge_pages();
  facts.open_files = soft_limit(RLIMIT_NOFILE);
  facts.locked_bytes = soft_limit(RLIMIT_MEMLOCK);
  facts.address_bytes = soft_limit(RLIMIT_AS);
  facts.file_bytes = soft_limit(RLIMIT_FSIZE);
  facts.io_uring = probe_io_uring();
  facts.temporary = disk_space(environment("TMPDIR").value_or("/tmp"));
  facts.temporary_writable = probe_writable(facts.temporary.path);
  std::error_code error;
  const fs::path working = fs::current_path(error);
  facts.working = disk_space(error ? "." : working.string());
  facts.num_gpus = launcher::count_gpus();
  facts.gpu_driver = driver_version(root);
  facts.visible_gpus = environment("CUDA_VISIBLE_DEVICES");
  facts.mpirun = find_in_path("mpirun");
  facts.built_with_mpi = HYDROFOIL_BUILT_WITH_MPI != 0;
  facts.settings = hydrofoil_settings();
  return facts;
}

}  // namespace hydrofoil::doctor
