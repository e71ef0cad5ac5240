#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "apps/doctor/host_facts.h"
#include "apps/doctor/python_facts.h"
#include "hydrofoil/base/error.h"
#include "tests/support/temporary_directory.h"

namespace hydrofoil::doctor {
namespace {

void write(const std::string& path, const std::string& text) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path) << text;
}

TEST(ExamineHost, ReadsWhatTheSystemSays) {
  const storage::TemporaryDirectory directory;
  const std::string root = directory.path();
  EXPECT_THROW((void)examine_host(root), SystemError);
  write(root + "/proc/meminfo", "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 500 kB\n");
  write(root + "/proc/cpuinfo", "processor : 0\nmodel name : A processor\nflags : fpu avx512_bf16 avx2 amx_bf16\n");
  write(root + "/proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release\n");
  write(root + "/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
  write(root + "/proc/self/cgroup", "0::/job\n");
  write(root + "/sys/fs/cgroup/job/cpu.max", "150000 100000\n");
  write(root + "/sys/fs/cgroup/job/memory.max", "409600\n");
  for (const char* name : {"node0", "node1", "nodes", "possible"}) {
    std::filesystem::create_directories(root + "/sys/devices/system/node/" + name);
  }
  const HostFacts facts = examine_host(root);
  EXPECT_EQ(facts.memory_bytes, 1'024'000);
  EXPECT_EQ(facts.memory_limit_bytes, 409'600);
  EXPECT_EQ(facts.memory_available_bytes, 512'000);
  EXPECT_EQ(facts.cpu_name, "A processor");
  EXPECT_EQ(facts.matrix_flags, (std::vector<std::string>{"avx512_bf16", "amx_bf16"}));
  EXPECT_EQ(facts.gpu_driver, "550.54.15");
  EXPECT_EQ(facts.huge_pages, "madvise");
  EXPECT_EQ(facts.cpu_time_limit, 1.5);
  EXPECT_EQ(facts.num_numa_nodes, 2);
  EXPECT_GE(facts.num_allowed_cores, 1);
}

// A program that says what a Python would say.
std::string speaker(const storage::TemporaryDirectory& directory, const std::string& body) {
  const std::string path = directory.path() + "/python";
  write(path, "#!/bin/sh\n" + body + "\n");
  ::chmod(path.c_str(), 0755);
  return path;
}

TEST(ExaminePython, TakesWhatItSays) {
  const storage::TemporaryDirectory directory;
  const PythonFacts facts = examine_python(speaker(directory, R"(
echo '{"version": "3.12.1", "executable": "/usr/bin/python3"}'
echo '{"torch_version": "2.13.0", "torch_cuda": null, "torch_cxx11_abi": false, "backends": ["gloo"]}'
echo '{"devices": [["H100", 1024]], "nccl": "2.28.3", "cuda_available": true}'
echo '{"hydrofoil_error": "ImportError: no"}'
echo '{"stage": "end"}')"));
  EXPECT_EQ(facts.error, "");
  EXPECT_EQ(facts.version, "3.12.1");
  EXPECT_EQ(facts.torch_version, "2.13.0");
  EXPECT_EQ(facts.torch_cuda, "");
  EXPECT_FALSE(facts.torch_cxx11_abi);
  EXPECT_TRUE(facts.cuda_available);
  ASSERT_EQ(facts.devices.size(), 1u);
  EXPECT_EQ(facts.devices[0].memory_bytes, 1024);
  EXPECT_EQ(facts.package_error, "ImportError: no");
}

TEST(ExaminePython, SaysHowItEnded) {
  const storage::TemporaryDirectory directory;
  const std::string stage = R"(echo '{"stage": "import torch"}'; )";
  EXPECT_EQ(examine_python(speaker(directory, stage + "kill -ILL $$")).error, "it was ended by SIGILL at import torch");
  EXPECT_EQ(examine_python(speaker(directory, stage + "exit 7")).error, "it ended with exit code 7 at import torch");
  EXPECT_EQ(examine_python(speaker(directory, stage + "exec sleep 100"), 1).error,
            "it said nothing for 1 s at import torch");
  EXPECT_NE(examine_python(speaker(directory, "echo hello")).error.find("hello"), std::string::npos);
  EXPECT_NE(examine_python(speaker(directory, "echo '{\"devices\": [[1]]}'")).error, "");
  EXPECT_NE(examine_python(directory.path() + "/absent").error.find("No such file"), std::string::npos);
}

}  // namespace
}  // namespace hydrofoil::doctor
