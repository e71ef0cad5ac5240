#include "apps/doctor/judge.h"

#include <gtest/gtest.h>

#include <functional>
#include <sstream>
#include <string>

#include "apps/doctor/report.h"

namespace hydrofoil::doctor {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kGiB = int64_t{1} << 30;

Program good_program() { return {.version = "0.1.0", .torch_version = "2.13.0", .path = "/env/bin/hydrofoil"}; }

PythonFacts good_python() {
  PythonFacts python{.interpreter = "/env/bin/python3"};
  python.version = "3.11.7";
  python.executable = "/env/bin/python3";
  python.torch_version = "2.13.0+cpu";
  python.backends = {"gloo"};
  python.package_version = "0.1.0";
  python.package_path = "/env/lib/hydrofoil";
  return python;
}

HostFacts good_host() {
  HostFacts host;
  host.cpu_name = "A processor";
  host.detected_isa = host.used_isa = "avx512";
  host.num_cores = host.num_allowed_cores = 8;
  host.memory_bytes = host.memory_limit_bytes = 64 * kGiB;
  host.memory_available_bytes = 32 * kGiB;
  host.huge_pages = "madvise";
  host.shared_memory = {.path = "/dev/shm", .total_bytes = 32 * kGiB, .free_bytes = 32 * kGiB};
  host.memfd.works = host.shared_huge_pages.works = host.io_uring.works = host.temporary_writable.works = true;
  host.open_files = 65536;
  host.temporary = {.path = "/tmp", .total_bytes = 99 * kGiB, .free_bytes = 50 * kGiB};
  host.working = {.path = "/work", .total_bytes = 99 * kGiB, .free_bytes = 50 * kGiB};
  return host;
}

std::vector<Finding> judge(const PythonFacts& python, const HostFacts& host) {
  std::vector<Finding> all = judge_python(good_program(), python, host);
  for (const Finding& one : judge_host(host)) all.push_back(one);
  return all;
}

TEST(Doctor, FindsNothingOnAGoodMachine) {
  for (const Finding& one : judge(good_python(), good_host())) {
    EXPECT_EQ(one.level, Level::kOk) << one.name << ": " << one.value;
    EXPECT_EQ(one.advice, "");
    EXPECT_NE(one.value, "");
  }
}

struct Case {
  const char* line;  // name of the finding
  Level level;
  const char* value;   // a part of it
  const char* advice;  // a part of it
  std::function<void(PythonFacts&, HostFacts&)> change;
};

class DoctorFinds : public testing::TestWithParam<Case> {};

TEST_P(DoctorFinds, OneThingAndSaysWhatToDo) {
  PythonFacts python = good_python();
  HostFacts host = good_host();
  GetParam().change(python, host);
  int num_found = 0;
  for (const Finding& one : judge(python, host)) {
    if (one.level == Level::kOk) continue;
    ++num_found;
    EXPECT_EQ(one.name, GetParam().line);
    EXPECT_EQ(one.level, GetParam().level) << one.value;
    EXPECT_NE(one.value.find(GetParam().value), std::string::npos) << one.value;
    EXPECT_NE(one.advice.find(GetParam().advice), std::string::npos) << one.advice;
  }
  EXPECT_EQ(num_found, 1);
}

void no_torch(PythonFacts& python, const std::string& why) {
  python.torch_version = python.package_version = "";
  python.backends.clear();
  python.torch_error = why;
}

void gpus(PythonFacts& python, HostFacts& host, int64_t count) {
  host.num_gpus = count;
  host.gpu_driver = "550.54.15";
  python.torch_cuda = "13.0";
  python.cuda_available = true;
  python.nccl = "2.28.3";
  for (int64_t i = 0; i < count; ++i) python.devices.push_back({"NVIDIA H100", 80 * kGiB});
}

INSTANTIATE_TEST_SUITE_P(Each, DoctorFinds,
                         testing::
                             Values(
                                 Case{"Python", Level::kProblem, "No such file", "HYDROFOIL_PYTHON",
                                      [](auto& python, auto&) {
                                        python = {.interpreter = "python9", .error = "No such file"};
                                      }},
                                 Case{"Python", Level::kProblem, "3.8.10", "3.10",
                                      [](auto& python, auto&) { python.version = "3.8.10"; }},
                                 Case{"imports", Level::kProblem, "SIGILL at import torch",
                                      "-c 'import torch, hydrofoil'",
                                      [](auto& python, auto&) {
                                        no_torch(python, "");
                                        python.error = "it was ended by SIGILL at import torch";
                                      }},
                                 Case{"torch", Level::kProblem, "No module named 'torch'",
                                      "pip install 'torch==2.13.*'",
                                      [](auto& python, auto&) {
                                        no_torch(python, "ModuleNotFoundError: No module named 'torch'");
                                      }},
                                 Case{"torch", Level::kProblem, "2.1.2", "pip install 'torch==2.13.*'",
                                      [](auto& python, auto&) { python.torch_version = "2.1.2"; }},
                                 Case{"C++ ABI", Level::kProblem, "before C++11", "PyPI",
                                      [](auto& python, auto&) { python.torch_cxx11_abi = false; }},
                                 Case{"hydrofoil", Level::kProblem, "ImportError", "follow the message",
                                      [](auto& python, auto&) { python.package_error = "ImportError: libx.so"; }},
                                 Case{"hydrofoil", Level::kWarning, "0.0.9", "this program is 0.1.0",
                                      [](auto& python, auto&) { python.package_version = "0.0.9"; }},
                                 Case{"Gloo", Level::kProblem, "none", "PyPI",
                                      [](auto& python, auto&) { python.backends.clear(); }},
                                 Case{"GPUs", Level::kWarning, "2 GPUs; this torch was built without CUDA",
                                      "torch with CUDA", [](auto&, auto& host) { host.num_gpus = 2; }},
                                 Case{"GPUs", Level::kProblem, "torch cannot use them: driver too old", "CUDA 13.0",
                                      [](auto& python, auto& host) {
                                        gpus(python, host, 1);
                                        python.devices.clear();
                                        python.cuda_available = false;
                                        python.cuda_error = "driver too old";
                                      }},
                                 Case{"NCCL", Level::kProblem, "none", "PyPI",
                                      [](auto& python, auto& host) {
                                        gpus(python, host, 2);
                                        python.nccl = "";
                                      }},
                                 Case{"kernels", Level::kProblem, "got 'sse'", "unset HYDROFOIL_CPU_ISA",
                                      [](auto&, auto& host) { host.isa_error = "HYDROFOIL_CPU_ISA: got 'sse'"; }},
                                 Case{"kernels", Level::kWarning, "avx2 by HYDROFOIL_CPU_ISA",
                                      "unset HYDROFOIL_CPU_ISA", [](auto&, auto& host) { host.used_isa = "avx2"; }},
                                 Case{"kernels", Level::kWarning, "scalar", "virtual machine",
                                      [](auto&, auto& host) { host.used_isa = host.detected_isa = "scalar"; }},
                                 Case{"cores", Level::kWarning, "the time of 1.5",
                                      "at or below 1:", [](auto&, auto& host) { host.cpu_time_limit = 1.5; }},
                                 Case{"threads", Level::kWarning, "OMP_NUM_THREADS=64 on 8 cores",
                                      "unset OMP_NUM_THREADS", [](auto&, auto& host) { host.omp_num_threads = 64; }},
                                 Case{"memory", Level::kWarning, "the control group gives 512", "--memory",
                                      [](auto&, auto& host) { host.memory_limit_bytes = 512 * kMiB; }},
                                 Case{"shared memory", Level::kWarning, "memfd_create: Operation not permitted",
                                      "seccomp",
                                      [](auto&, auto& host) {
                                        host.memfd = {.works = false,
                                                      .reason = "memfd_create: Operation not permitted"};
                                      }},
                                 Case{"/dev/shm", Level::kWarning, "64.0", "--shm-size",
                                      [](auto&, auto& host) { host.shared_memory.total_bytes = 64 * kMiB; }},
                                 Case{
                                     "/dev/shm", Level::kWarning, "No such file", "num_workers=0",
                                     [](auto&, auto& host) { host.shared_memory.error = "No such file or directory"; }},
                                 Case{"huge pages", Level::kWarning, "never", "transparent_hugepage",
                                      [](auto&, auto& host) { host.huge_pages = "never"; }},
                                 Case{"of shared memory", Level::kWarning, "MADV_COLLAPSE", "6.1",
                                      [](auto&, auto& host) {
                                        host.shared_huge_pages = {.works = false,
                                                                  .reason = "madvise(MADV_COLLAPSE): Invalid argument"};
                                      }},
                                 Case{"open files", Level::kWarning, "512", "ulimit -n",
                                      [](auto&, auto& host) { host.open_files = 512; }},
                                 Case{"open files", Level::kProblem, "64", "ulimit -n",
                                      [](auto&, auto& host) { host.open_files = 64; }},
                                 Case{"address space", Level::kWarning, "8.00 GiB of addresses", "ulimit -v",
                                      [](auto&, auto& host) { host.address_bytes = 8 * kGiB; }},
                                 Case{"temporary", Level::kProblem, "Permission denied", "TMPDIR",
                                      [](auto&, auto& host) {
                                        host.temporary_writable = {.works = false, .reason = "Permission denied"};
                                      }},
                                 Case{"temporary", Level::kWarning, "/tmp: 512", "TMPDIR",
                                      [](auto&, auto& host) { host.temporary.free_bytes = 512 * kMiB; }},
                                 Case{"this folder", Level::kProblem, "0 B", "checkpoints",
                                      [](auto&, auto& host) { host.working.free_bytes = 0; }}));

TEST(Doctor, NamesEachGpuThatTorchUses) {
  PythonFacts python = good_python();
  HostFacts host = good_host();
  gpus(python, host, 2);
  std::string names;
  for (const Finding& one : judge_python(good_program(), python, host)) {
    EXPECT_EQ(one.level, Level::kOk) << one.name;
    names += one.name + "|";
  }
  EXPECT_NE(names.find("GPU 0|GPU 1|driver|NCCL|"), std::string::npos) << names;
}

TEST(Doctor, PrintsOneLineAFindingWhateverAnExceptionSays) {
  std::ostringstream out;
  const std::vector<Finding> findings = {
      {"Software", "torch", Level::kProblem, "line one\n\x1b[31mline two", "do this"}};
  print_report({findings, {}}, out);
  EXPECT_EQ(
      out.str(),
      "Software\n  problem  torch           line one [31mline two\n           -> do this\n\n1 problem, no warnings\n");
  out.str("");
  print_report({findings, {}, true}, out);
  EXPECT_EQ(out.str(), "\n1 problem, no warnings\n");
}

}  // namespace
}  // namespace hydrofoil::doctor
