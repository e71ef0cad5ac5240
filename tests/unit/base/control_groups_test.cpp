#include "hydrofoil/base/control_groups.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/support/temporary_directory.h"

namespace hydrofoil {
namespace {

void write(const std::string& path, const std::string& text) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path) << text;
}

TEST(CpuTimeLimit, IsTheLowestOfTheGroupAndThoseAbove) {
  const storage::TemporaryDirectory directory;
  const std::string root = directory.path();
  EXPECT_EQ(cpu_time_limit(root), std::nullopt);
  write(root + "/proc/self/cgroup", "0::/pod/container\n");
  write(root + "/sys/fs/cgroup/pod/container/cpu.max", "max 100000\n");
  EXPECT_EQ(cpu_time_limit(root), std::nullopt);
  write(root + "/sys/fs/cgroup/pod/cpu.max", "400000 100000\n");
  EXPECT_EQ(cpu_time_limit(root), 4);
  write(root + "/sys/fs/cgroup/pod/container/cpu.max", "150000 100000\n");
  EXPECT_EQ(cpu_time_limit(root), 1.5);
}

TEST(CpuTimeLimit, OfVersionOneLiesInTwoFiles) {
  const storage::TemporaryDirectory directory;
  const std::string root = directory.path();
  write(root + "/proc/self/cgroup", "3:memory:/m\n2:cpu,cpuacct:/a\n");
  write(root + "/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "-1\n");
  write(root + "/sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(cpu_time_limit(root), std::nullopt);
  write(root + "/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "50000\n");
  EXPECT_EQ(cpu_time_limit(root), 0.5);
}

}  // namespace
}  // namespace hydrofoil
