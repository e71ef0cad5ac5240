#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "apps/cmake_prefix.h"
#include "apps/config_command.h"
#include "apps/doctor_command.h"
#include "apps/inspect_command.h"
#include "apps/launcher/launch.h"
#include "apps/launcher/supervisor.h"
#include "apps/plan_command.h"
#include "apps/trace_command.h"
#include "hydrofoil/base/environment.h"
#include "hydrofoil/base/error.h"
#include "hydrofoil/base/nearest.h"

namespace hydrofoil {
namespace {

constexpr const char* kHelp = R"(Train with ZeRO on one host or many: the program beside the Python package hydrofoil.

Usage: hydrofoil COMMAND [ARGS...]

Commands:
  run             Start a script once per rank
  train           Train a Llama or GPT-2 model in C++, from a ds_config.json and a config.json
  plan            Show what a job keeps in memory, sends and takes a step, before it starts
  config explain  Show every setting of a ds_config.json, resolved, and why it has its value
  inspect         List names, dtypes, shapes and sizes of a safetensors file or a checkpoint
  trace           Show where the time of a step goes, from a trace that hydrofoil.trace wrote
  doctor          Examine this machine, and say what to do about each problem

Options:
  -h, --help      Print this text and exit; `hydrofoil COMMAND --help` explains a command
  --version       Print the version and the torch it was built with, and exit
  --cmake-prefix  Print what CMAKE_PREFIX_PATH needs for find_package(hydrofoil), and exit

Examples:
  hydrofoil run --nproc 2 train.py
  hydrofoil run --no-python --nproc 2 hydrofoil train --config ds_config.json --model config.json --data text/
  hydrofoil plan --config ds_config.json --model config.json --world-size 8 --memory 24GiB
  hydrofoil config explain ds_config.json --world-size 8
  hydrofoil inspect model.safetensors
  hydrofoil trace trace.json
  cmake -B build -DCMAKE_PREFIX_PATH=$(hydrofoil --cmake-prefix)

Exit codes: 0 done; 1 a plan does not fit, or doctor found a problem; 2 wrong use, or a wrong configuration or
file; 126 the system refused something; for those of `run` and `train` see their --help.
)";

// Where this program lies: as it was called (a link in a virtual environment, too), then the file itself.
std::vector<std::string> program_paths(const std::string& called_as) {
  std::vector<std::string> paths;
  if (called_as.find('/') != std::string::npos) {
    paths.push_back(called_as);
  } else {
    std::stringstream folders(environment("PATH").value_or(""));
    std::string folder;
    while (std::getline(folders, folder, ':')) {
      const std::string candidate = folder + "/" + called_as;
      if (::access(candidate.c_str(), X_OK) != 0) continue;
      paths.push_back(candidate);
      break;
    }
  }
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) paths.push_back(self.string());
  return paths;
}

int run_command(std::span<const std::string> arguments, const std::string& called_as) {
  const launcher::ParsedRun parsed = launcher::parse_run_arguments(arguments);
  if (parsed.help) {
    std::cout << *parsed.help << std::flush;
    return 0;
  }
  return launcher::launch(parsed.options, program_paths(called_as));
}

int config_command(std::span<const std::string> arguments) {
  const ConfigArguments parsed = parse_config_arguments(arguments);
  std::cout << (parsed.help ? *parsed.help : explain_config(parsed)) << std::flush;
  return 0;
}

int inspect_command(std::span<const std::string> arguments) {
  const InspectArguments parsed = parse_inspect_arguments(arguments);
  if (parsed.help) {
    std::cout << *parsed.help << std::flush;
  } else {
    inspect(parsed, std::cout);
  }
  return 0;
}

int trace_command(std::span<const std::string> arguments) {
  const TraceArguments parsed = parse_trace_arguments(arguments);
  std::cout << (parsed.help ? *parsed.help : summarize_trace(parsed)) << std::flush;
  return 0;
}

int plan(std::span<const std::string> arguments) {
  const PlanArguments parsed = parse_plan_arguments(arguments);
  if (!parsed.help) return plan_command(parsed, std::cout, std::cerr);
  std::cout << *parsed.help << std::flush;
  return 0;
}

int doctor(std::span<const std::string> arguments, const std::string& called_as) {
  const DoctorArguments parsed = parse_doctor_arguments(arguments);
  if (!parsed.help) return doctor_command(parsed, program_paths(called_as), std::cout);
  std::cout << *parsed.help << std::flush;
  return 0;
}

// Replaces this process by the program hydrofoil-train, which lies beside it: the one command that needs libtorch.
int train_command(std::span<const std::string> arguments, const std::string& called_as) {
  std::string tried;
  for (const std::string& path : program_paths(called_as)) {
    const std::string program = (std::filesystem::path(path).parent_path() / "hydrofoil-train").string();
    std::vector<std::string> words = {program};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (auto& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    ::execv(program.c_str(), argv.data());
    tried += (tried.empty() ? "" : ", ") + program + ": " + std::strerror(errno);
  }
  throw SystemError("[hydrofoil train] cannot start the program hydrofoil-train (" + tried +
                    "); install hydrofoil again");
}

int dispatch(const std::vector<std::string>& arguments, const std::string& called_as) {
  const std::string command = arguments.empty() ? "--help" : arguments[0];
  if (command == "--help" || command == "-h" || command == "help") {
    (arguments.empty() ? std::cerr : std::cout) << kHelp << std::flush;
    return arguments.empty() ? launcher::kExitUsage : 0;
  }
  if (command == "--version") {
    std::cout << "hydrofoil " HYDROFOIL_VERSION " (built with torch " HYDROFOIL_TORCH_VERSION ")" << std::endl;
    return 0;
  }
  if (command == "--cmake-prefix") {
    std::cout << cmake_prefix(program_paths(called_as)) << std::endl;
    return 0;
  }
  const std::span<const std::string> rest(arguments.begin() + 1, arguments.end());
  if (command == "run") return run_command(rest, called_as);
  if (command == "config") return config_command(rest);
  if (command == "train") return train_command(rest, called_as);
  if (command == "plan") return plan(rest);
  if (command == "inspect") return inspect_command(rest);
  if (command == "trace") return trace_command(rest);
  if (command == "doctor") return doctor(rest, called_as);
  const bool flag = command.starts_with("-");
  const std::vector<std::string> names =
      flag ? std::vector<std::string>{"--help", "--version", "--cmake-prefix"}
           : std::vector<std::string>{"run", "train", "plan", "config", "inspect", "trace", "doctor"};
  throw InvalidArgument("[hydrofoil] unknown " + std::string(flag ? "flag " : "command ") + command +
                        "; the nearest valid one is " + nearest_name(command, names) + " (see hydrofoil --help)");
}

}  // namespace
}  // namespace hydrofoil

int main(int argc, char** argv) {
  try {
    return hydrofoil::dispatch({argv + 1, argv + argc}, argv[0]);
  } catch (const hydrofoil::InvalidArgument& error) {
    std::cerr << error.what() << std::endl;
    return hydrofoil::launcher::kExitUsage;
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return hydrofoil::launcher::kExitSystem;
  }
}
