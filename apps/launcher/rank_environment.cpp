#include "apps/launcher/rank_environment.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "hydrofoil/base/environment.h"
#include "hydrofoil/base/error.h"

namespace hydrofoil::launcher {
namespace {

constexpr int kMaxCores = 4096;

int64_t listed_devices(const std::string& list) {
  int64_t count = 0;
  std::stringstream items(list);
  std::string item;
  // As in CUDA, devices behind the first invalid one are invisible.
  while (std::getline(items, item, ',') && !item.empty() && item != "-1") ++count;
  return count;
}

}  // namespace

ReservedPort::ReservedPort() {
  socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket_ < 0) throw_system_error("hydrofoil run", "socket", errno);
  const int on = 1;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_ANY);
  socklen_t length = sizeof(address);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (::setsockopt(socket_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 || ::bind(socket_, generic, length) != 0 ||
      ::getsockname(socket_, generic, &length) != 0) {
    const int error = errno;
    ::close(socket_);
    throw_system_error("hydrofoil run", "find a free port", error);
  }
  port_ = ntohs(address.sin_port);
}

ReservedPort::~ReservedPort() { ::close(socket_); }

int64_t count_gpus() {
  if (const char* visible = std::getenv("CUDA_VISIBLE_DEVICES")) return listed_devices(visible);
  int64_t count = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/dev", error)) {
    const std::string name = entry.path().filename().string();
    const std::string digits = name.starts_with("nvidia") ? name.substr(6) : "";
    if (!digits.empty() && digits.find_first_not_of("0123456789") == std::string::npos) ++count;
  }
  return count;
}

int64_t default_num_ranks() { return std::max<int64_t>(1, count_gpus()); }

std::vector<int> allowed_cores() {
  cpu_set_t* set = CPU_ALLOC(kMaxCores);
  const size_t size = CPU_ALLOC_SIZE(kMaxCores);
  std::vector<int> cores;
  if (::sched_getaffinity(0, size, set) == 0) {
    for (int core = 0; core < kMaxCores; ++core) {
      if (CPU_ISSET_S(core, size, set)) cores.push_back(core);
    }
  }
  const int error = errno;
  CPU_FREE(set);
  if (cores.empty()) throw_system_error("hydrofoil run", "sched_getaffinity", error);
  return cores;
}

std::vector<int> cores_of_rank(const std::vector<int>& cores, int num_ranks, int rank) {
  HYDROFOIL_ASSERT(!cores.empty() && rank >= 0 && rank < num_ranks);
  const size_t count = cores.size();
  const auto ranks = static_cast<size_t>(num_ranks);
  const auto index = static_cast<size_t>(rank);
  if (count < ranks) return {cores[index % count]};
  const auto begin = static_cast<ptrdiff_t>(index * count / ranks);
  const auto end = static_cast<ptrdiff_t>((index + 1) * count / ranks);
  return {cores.begin() + begin, cores.begin() + end};
}

RunPlan make_plan(const RunOptions& options, int port, std::optional<int64_t> terminal_columns) {
  RunPlan plan;
  plan.num_ranks = static_cast<int>(options.num_ranks ? *options.num_ranks : default_num_ranks());
  plan.master_addr = options.master_addr;
  plan.master_port = port;
  plan.cores = allowed_cores();
  plan.bind_cores = options.bind_cores;
  if (!options.core_list.empty()) {
    for (const int core : options.core_list) {
      HYDROFOIL_CHECK_ARG(std::binary_search(plan.cores.begin(), plan.cores.end(), core), "hydrofoil run",
                          "--core-list: this process may not use core ", core);
    }
    plan.cores = options.core_list;
    std::sort(plan.cores.begin(), plan.cores.end());
  }
  if (!environment("OMP_NUM_THREADS")) {
    plan.omp_num_threads = std::max<int64_t>(1, static_cast<int64_t>(plan.cores.size()) / plan.num_ranks);
  }
  if (options.output != OutputMode::kPrefix) plan.terminal_columns = terminal_columns;
  return plan;
}

std::vector<std::pair<std::string, std::string>> rank_variables(const RunPlan& plan, int rank) {
  const std::string ranks = std::to_string(plan.num_ranks);
  std::vector<std::pair<std::string, std::string>> variables = {
      {"RANK", std::to_string(rank)},
      {"LOCAL_RANK", std::to_string(rank)},
      {"WORLD_SIZE", ranks},
      {"LOCAL_WORLD_SIZE", ranks},
      {"LOCAL_SIZE", ranks},
      {"CROSS_RANK", "0"},
      {"CROSS_SIZE", "1"},
      {"NODE_RANK", "0"},
      {"GROUP_RANK", "0"},
      {"MASTER_ADDR", plan.master_addr},
      {"MASTER_PORT", std::to_string(plan.master_port)},
      {"PYTHONUNBUFFERED", "1"},
  };
  if (plan.omp_num_threads) variables.emplace_back("OMP_NUM_THREADS", std::to_string(*plan.omp_num_threads));
  // Empty counts as unset, and hides the variable of a launcher around this one.
  const bool terminal = rank == 0 && plan.terminal_columns;
  variables.emplace_back("HYDROFOIL_TERMINAL", terminal ? std::to_string(*plan.terminal_columns) : "");
  return variables;
}

std::vector<std::string> merge_environment(const std::vector<std::string>& inherited,
                                           const std::vector<std::pair<std::string, std::string>>& variables) {
  std::vector<std::string> merged;
  for (const auto& entry : inherited) {
    const std::string name = entry.substr(0, entry.find('='));
    const bool replaced =
        std::any_of(variables.begin(), variables.end(), [&](const auto& variable) { return variable.first == name; });
    if (!replaced) merged.push_back(entry);
  }
  for (const auto& [name, value] : variables) merged.push_back(name + "=" + value);
  return merged;
}

std::vector<std::string> rank_command(const RunOptions& options, const std::string& python, int rank) {
  std::vector<std::string> command;
  if (options.use_python) command.push_back(python);
  if (options.is_module) command.push_back("-m");
  command.push_back(options.script);
  if (options.append_local_rank) command.push_back("--local_rank=" + std::to_string(rank));
  command.insert(command.end(), options.arguments.begin(), options.arguments.end());
  return command;
}

std::string find_python(const std::vector<std::string>& program_paths) {
  if (auto python = environment("HYDROFOIL_PYTHON")) return *python;
  for (const auto& path : program_paths) {
    const std::string candidate = (std::filesystem::path(path).parent_path() / "python3").string();
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return "python3";
}

std::string describe_plan(const RunPlan& plan) {
  std::ostringstream line;
  line << "hydrofoil run: " << plan.num_ranks << (plan.num_ranks == 1 ? " rank" : " ranks") << ", MASTER "
       << plan.master_addr << ":" << plan.master_port << ", OMP_NUM_THREADS=";
  if (plan.omp_num_threads) {
    line << *plan.omp_num_threads << " (" << plan.cores.size() << " cores / " << plan.num_ranks << " ranks)";
  } else {
    line << environment("OMP_NUM_THREADS").value_or("") << " (as set)";
  }
  if (plan.bind_cores) line << ", each on its own cores";
  return line.str();
}

}  // namespace hydrofoil::launcher
