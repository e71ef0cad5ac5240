#include "apps/launcher/launch.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <iostream>
#include <memory>
#include <optional>

#include "apps/launcher/process.h"
#include "apps/launcher/rank_environment.h"
#include "apps/launcher/supervisor.h"
#include "apps/launcher/terminal.h"
#include "hydrofoil/base/error.h"

// NOTE [Two processes]
// kill -9 of the launcher must leave no process behind, also none that a rank started. The kernel's parent-death signal
// reaches the ranks alone, so somebody has to outlive the launcher. `hydrofoil run` is therefore two processes: the one
// in front, which the user or the batch system sees, and the supervisor, which is the ancestor of all ranks and does
// all the work.
//   front killed:      the supervisor sees the end of a pipe and kills all its descendants.
//   supervisor killed: its ranks get the parent-death signal; what they had started becomes the child of the process in
//   front
//                      (a subreaper), which kills it.
// The supervisor and each rank have process groups of their own: Ctrl-C reaches the process in front alone, which
// passes it on, once.

namespace hydrofoil::launcher {
namespace {

int supervisor_process(const RunOptions& options, const RunPlan& plan, const std::string& python, int front_fd) {
  ::setpgid(0, 0);
  try {
    become_subreaper();
    return supervise(options, plan, python, front_fd);
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return kExitSystem;
  }
}

// Passes signals to the supervisor until it has ended; returns its exit code.
int stand_in_front(pid_t supervisor, const sigset_t& mask) {
  while (true) {
    int number = 0;
    if (::sigwait(&mask, &number) != 0) throw_system_error("hydrofoil run", "sigwait", errno);
    if (number != SIGCHLD) {
      ::kill(supervisor, number);
      if (number == SIGTSTP) ::raise(SIGSTOP);
      continue;
    }
    int status = 0;
    pid_t ended;
    while ((ended = ::waitpid(-1, &status, WNOHANG)) > 0) {
      if (ended != supervisor) continue;
      if (WIFEXITED(status)) return WEXITSTATUS(status);
      end_descendants(0);
      std::cerr << "hydrofoil run: the supervising process was ended by " << signal_name(WTERMSIG(status))
                << "; all ranks were killed" << std::endl;
      return 128 + WTERMSIG(status);
    }
  }
}

}  // namespace

int launch(const RunOptions& options, const std::vector<std::string>& program_paths) {
  std::optional<ReservedPort> reserved;
  if (!options.master_port) reserved.emplace();
  const int port = options.master_port ? static_cast<int>(*options.master_port) : reserved->port();
  const RunPlan plan = make_plan(options, port, terminal_columns());
  const std::string python = find_python(program_paths);

  sigset_t mask;
  sigemptyset(&mask);
  for (const int number : {SIGCHLD, SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGTSTP, SIGCONT})
    sigaddset(&mask, number);
  ::sigprocmask(SIG_BLOCK, &mask, nullptr);
  ::signal(SIGCHLD, SIG_DFL);  // ignored, it would take the exit codes away
  ::signal(SIGPIPE, SIG_IGN);  // a reader that left is seen by write()
  ::signal(SIGTTOU, SIG_IGN);  // the supervisor writes to the terminal from the background

  become_subreaper();
  int front[2];
  if (::pipe2(front, O_CLOEXEC) != 0) throw_system_error("hydrofoil run", "pipe", errno);
  const pid_t supervisor = ::fork();
  if (supervisor < 0) throw_system_error("hydrofoil run", "fork", errno);
  if (supervisor == 0) {
    ::close(front[1]);
    ::_exit(supervisor_process(options, plan, python, front[0]));
  }
  ::setpgid(supervisor, supervisor);
  ::close(front[0]);
  return stand_in_front(supervisor, mask);
}

}  // namespace hydrofoil::launcher
