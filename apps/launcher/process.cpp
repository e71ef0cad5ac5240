#include "apps/launcher/process.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <set>

#include "hydrofoil/base/clock.h"
#include "hydrofoil/base/error.h"

namespace hydrofoil::launcher {
namespace {

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> result;
  result.reserve(texts.size() + 1);
  for (const auto& text : texts) result.push_back(const_cast<char*>(text.c_str()));
  result.push_back(nullptr);
  return result;
}

// Everything the child needs, made before fork(): only async-signal-safe calls are allowed behind it.
struct ChildPlan {
  std::vector<char*> argv;
  std::vector<char*> envp;
  cpu_set_t* cores = nullptr;
  size_t cores_size = 0;
  pid_t parent = 0;
};

[[noreturn]] void report_and_exit(int report_fd) {
  const int error = errno;
  [[maybe_unused]] const ssize_t written = ::write(report_fd, &error, sizeof(error));
  ::_exit(127);
}

[[noreturn]] void run_child(const SpawnRequest& request, const ChildPlan& plan, int report_fd) {
  ::setpgid(0, 0);
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) report_and_exit(report_fd);
  // The parent may have ended before prctl: then no signal will ever come.
  if (::getppid() != plan.parent) ::_exit(127);
  // SIGINT is ignored in what a script starts with `&`; the launcher passes it on, and a rank must be able to end at
  // it.
  for (const int number : {SIGINT, SIGTERM, SIGPIPE, SIGCHLD, SIGTTOU}) ::signal(number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  if (plan.cores != nullptr && ::sched_setaffinity(0, plan.cores_size, plan.cores) != 0) report_and_exit(report_fd);
  if (::dup2(request.stdin_fd, STDIN_FILENO) < 0 || ::dup2(request.stdout_fd, STDOUT_FILENO) < 0 ||
      ::dup2(request.stderr_fd, STDERR_FILENO) < 0) {
    report_and_exit(report_fd);
  }
  ::execvpe(plan.argv[0], plan.argv.data(), plan.envp.data());
  report_and_exit(report_fd);
}

// Parent of a process, from "pid (name) state ppid ..."; the name may hold spaces and parentheses.
std::optional<pid_t> parent_of(const std::filesystem::path& process_folder) {
  std::ifstream file(process_folder / "stat");
  std::string text;
  if (!std::getline(file, text)) return std::nullopt;
  const size_t name_end = text.rfind(')');
  if (name_end == std::string::npos || name_end + 4 > text.size()) return std::nullopt;
  return static_cast<pid_t>(std::strtol(text.c_str() + name_end + 4, nullptr, 10));
}

void signal_all(const std::vector<pid_t>& processes, int number) {
  for (const pid_t process : processes) ::kill(process, number);
}

void reap() {
  while (::waitpid(-1, nullptr, WNOHANG) > 0) {
  }
}

}  // namespace

pid_t spawn(const SpawnRequest& request) {
  HYDROFOIL_ASSERT(!request.command.empty());
  ChildPlan plan;
  plan.argv = pointers(request.command);
  plan.envp = pointers(request.environment);
  plan.parent = ::getpid();
  if (!request.cores.empty()) {
    const int count = request.cores.back() + 1;
    plan.cores = CPU_ALLOC(count);
    plan.cores_size = CPU_ALLOC_SIZE(count);
    CPU_ZERO_S(plan.cores_size, plan.cores);
    for (const int core : request.cores) CPU_SET_S(core, plan.cores_size, plan.cores);
  }
  int report[2];
  if (::pipe2(report, O_CLOEXEC) != 0) throw_system_error("hydrofoil run", "pipe", errno);

  const pid_t child = ::fork();
  const int fork_error = errno;
  if (child == 0) run_child(request, plan, report[1]);
  ::close(report[1]);
  if (plan.cores != nullptr) CPU_FREE(plan.cores);
  int error = child < 0 ? fork_error : 0;
  if (child > 0) {
    ::setpgid(child, child);  // in the child too: whoever comes first, the group is there before spawn() returns
    ssize_t got;
    do {
      got = ::read(report[0], &error, sizeof(error));
    } while (got < 0 && errno == EINTR);
    if (got > 0) ::waitpid(child, nullptr, 0);
  }
  ::close(report[0]);
  if (error != 0) throw_system_error("hydrofoil run", "cannot start " + request.command[0], error);
  return child;
}

void become_subreaper() {
  if (::prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) throw_system_error("hydrofoil run", "prctl", errno);
}

std::vector<pid_t> descendants() {
  std::multimap<pid_t, pid_t> children;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    const std::string name = entry.path().filename().string();
    if (std::isdigit(static_cast<unsigned char>(name[0])) == 0) continue;
    if (const auto parent = parent_of(entry.path())) children.emplace(*parent, std::atoi(name.c_str()));
  }
  if (error) throw_system_error("hydrofoil run", "read /proc", error.value());
  std::vector<pid_t> found = {::getpid()};
  for (size_t i = 0; i < found.size(); ++i) {
    const auto [begin, end] = children.equal_range(found[i]);
    for (auto child = begin; child != end; ++child) found.push_back(child->second);
  }
  found.erase(found.begin());
  return found;
}

size_t end_descendants(double grace_seconds) {
  constexpr double kStuckSeconds = 5;
  reap();
  std::vector<pid_t> left = descendants();
  std::set<pid_t> all(left.begin(), left.end());
  if (grace_seconds > 0) {
    signal_all(left, SIGTERM);
    signal_all(left, SIGCONT);
  }
  const double kill_at = monotonic_seconds() + grace_seconds;
  // Repeated, since a process can fork between the look at /proc and the signal.
  while (!left.empty() && monotonic_seconds() < kill_at + kStuckSeconds) {
    if (monotonic_seconds() >= kill_at) signal_all(left, SIGKILL);
    ::usleep(2000);
    reap();
    left = descendants();
    all.insert(left.begin(), left.end());
  }
  return all.size();
}

std::string signal_name(int signal_number) {
  const char* abbreviation = ::sigabbrev_np(signal_number);
  if (abbreviation == nullptr) return "signal " + std::to_string(signal_number);
  return std::string("SIG") + abbreviation;
}

}  // namespace hydrofoil::launcher
