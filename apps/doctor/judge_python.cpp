#include <algorithm>
#include <sstream>

#include "apps/doctor/judge.h"
#include "hydrofoil/base/error.h"
#include "hydrofoil/plan/byte_size.h"

namespace hydrofoil::doctor {
namespace {

using hydrofoil::detail::concat;

// "2.13" of "2.13.0+cpu".
std::string minor_of(const std::string& version) {
  const size_t first = version.find('.');
  const size_t second = first == std::string::npos ? first : version.find('.', first + 1);
  return version.substr(0, second);
}

bool is_older(const std::string& version, int major, int minor) {
  std::istringstream parts(version);
  int got_major = 0;
  int got_minor = 0;
  char dot = '.';
  if (!(parts >> got_major >> dot >> got_minor)) return false;
  return std::pair(got_major, got_minor) < std::pair(major, minor);
}

// Whether anything further can be said.
bool judge_interpreter(const PythonFacts& python, Section& section) {
  const std::string choose = "set HYDROFOIL_PYTHON to the Python that has torch";
  if (python.version.empty()) {
    section.problem("Python", concat(python.interpreter, ": ", python.error),
                    choose + ", or install Python 3.10 or later");
    return false;
  }
  const std::string value = concat(python.version, ", ", python.executable);
  if (is_older(python.version, 3, 10)) {
    section.problem("Python", value, "Hydrofoil needs Python 3.10 or later; " + choose);
    return false;
  }
  section.ok("Python", value);
  if (!python.error.empty()) {
    section.problem("imports", python.error,
                    concat("run it to see what it prints: ", python.executable, " -c 'import torch, hydrofoil'"));
  }
  return true;
}

bool judge_torch(const Program& program, const PythonFacts& python, Section& section) {
  const std::string built = minor_of(program.torch_version);
  const std::string install = concat(python.executable, " -m pip install 'torch==", built, ".*'");
  if (python.torch_version.empty()) {
    if (!python.torch_error.empty()) section.problem("torch", python.torch_error, install);
    return false;
  }
  const std::string value = concat(python.torch_version, "; the engine was built with ", program.torch_version);
  if (minor_of(python.torch_version) != built) {
    section.problem("torch", value,
                    concat("libtorch's C++ interface changes between minor versions: ", install,
                           ", or build hydrofoil again in its source: pip install --no-build-isolation "
                           "--force-reinstall --no-deps ."));
  } else {
    section.ok("torch", value);
  }
  if (python.torch_cxx11_abi) {
    section.ok("C++ ABI", "of C++11, as the engine's");
  } else {
    section.problem("C++ ABI", "this torch has the one before C++11, the engine that of C++11",
                    "install torch from PyPI: " + install);
  }
  return true;
}

void judge_package(const Program& program, const PythonFacts& python, Section& section) {
  if (!python.package_error.empty()) {
    section.problem(
        "hydrofoil", python.package_error,
        concat("follow the message; where it is not installed: pip install --no-build-isolation . in its source"));
  } else if (python.package_version != program.version) {
    if (python.package_version.empty()) return;
    section.warning("hydrofoil", concat(python.package_version, ", ", python.package_path),
                    concat("this program is ", program.version, ", ", program.path,
                           ": call the one beside that Python, or install both again"));
  } else {
    section.ok("hydrofoil", concat(python.package_version, ", ", python.package_path));
  }
}

void judge_devices(const PythonFacts& python, const HostFacts& host, Section& section) {
  const bool hidden = host.visible_gpus && host.num_gpus == 0;
  const std::string visible = host.visible_gpus ? concat(" (CUDA_VISIBLE_DEVICES=", *host.visible_gpus, ")") : "";
  if (host.num_gpus == 0 && python.devices.empty()) {
    section.ok("GPUs", concat(hidden ? "hidden" : "none", visible, ": ranks run on the CPU"));
    return;
  }
  const std::string count = concat(host.num_gpus, host.num_gpus == 1 ? " GPU" : " GPUs", visible);
  if (python.torch_version.empty()) {
    section.warning("GPUs", count, "install torch to see whether it can use them");
  } else if (python.torch_cuda.empty()) {
    section.warning("GPUs", count + "; this torch was built without CUDA, so ranks run on the CPU",
                    "install a torch with CUDA (pytorch.org/get-started), and hydrofoil for it");
  } else if (!python.cuda_available) {
    section.problem("GPUs",
                    concat(count, "; torch cannot use them", python.cuda_error.empty() ? "" : ": " + python.cuda_error),
                    concat("see that nvidia-smi works and that the driver is new enough for CUDA ", python.torch_cuda,
                           "; in a container: docker run --gpus all; CUDA_VISIBLE_DEVICES= (empty) trains on the CPU"));
  } else {
    for (size_t i = 0; i < python.devices.size(); ++i) {
      const GpuDevice& device = python.devices[i];
      section.ok(concat("GPU ", i), concat(device.name, ", ", plan::format_bytes(device.memory_bytes)));
    }
  }
  if (host.gpu_driver) section.ok("driver", *host.gpu_driver + ", CUDA " + python.torch_cuda + " in torch");
}

void judge_backends(const PythonFacts& python, const HostFacts& host, Section& section) {
  if (!python.nccl.empty()) {
    section.ok("NCCL", python.nccl);
  } else if (python.devices.size() > 1) {
    section.problem("NCCL", "this torch has none", "install torch from PyPI: ranks on several GPUs talk through NCCL");
  } else {
    section.ok("NCCL", "none in this torch; CPU ranks need none");
  }
  const bool gloo = std::find(python.backends.begin(), python.backends.end(), "gloo") != python.backends.end();
  if (gloo || python.torch_version.empty()) {
    if (gloo) section.ok("Gloo", "in this torch: CPU ranks on several hosts");
  } else {
    section.problem("Gloo", "this torch has none", "install torch from PyPI: ranks find each other through it");
  }
  const std::string built = host.built_with_mpi ? "the engine was built with it" : "the engine was built without it";
  section.ok("MPI", concat(host.mpirun ? *host.mpirun : "no mpirun in PATH", "; ", built,
                           host.built_with_mpi ? "" : " (only \"hydrofoil\": {\"backend\": \"mpi\"} needs it)"));
}

}  // namespace

std::vector<Finding> judge_python(const Program& program, const PythonFacts& python, const HostFacts& host) {
  Section software("Software");
  software.ok("program", concat(program.version, ", ", program.path));
  software.ok("compiler", "none is needed: the engine was built ahead of time");
  if (judge_interpreter(python, software) && judge_torch(program, python, software)) {
    judge_package(program, python, software);
  }
  Section devices("Devices and ranks");
  judge_devices(python, host, devices);
  judge_backends(python, host, devices);
  std::vector<Finding> all = software.findings();
  all.insert(all.end(), devices.findings().begin(), devices.findings().end());
  return all;
}

}  // namespace hydrofoil::doctor
