#include "hydrofoil/memory/memory_limit.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "hydrofoil/base/error.h"
#include "tests/support/temporary_directory.h"

namespace hydrofoil::memory {
namespace {

void write(const std::string& path, const std::string& text) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path) << text;
}

TEST(HostMemoryLimit, IsTheLowestLimitOfHostAndGroups) {
  const storage::TemporaryDirectory directory;
  const std::string root = directory.path();
  EXPECT_THROW((void)host_memory_limit(root), SystemError);
  write(root + "/proc/meminfo", "MemTotal:       1000 kB\nMemFree: 10 kB\n");
  EXPECT_EQ(host_memory_limit(root), 1'024'000);
  write(root + "/proc/self/cgroup", "0::/slurm/job\n");
  write(root + "/sys/fs/cgroup/slurm/job/memory.max", "max\n");
  EXPECT_EQ(host_memory_limit(root), 1'024'000);
  write(root + "/sys/fs/cgroup/slurm/memory.max", "700000\n");
  EXPECT_EQ(host_memory_limit(root), 700'000);
  write(root + "/proc/self/cgroup", "3:cpu,memory:/a\n1:name=systemd:/b\n");
  write(root + "/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "600000\n");
  EXPECT_EQ(host_memory_limit(root), 600'000);
}

TEST(HostMemoryLimit, OfThisHostIsPositive) { EXPECT_GT(host_memory_limit(), 0); }

}  // namespace
}  // namespace hydrofoil::memory
