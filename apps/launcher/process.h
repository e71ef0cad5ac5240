#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace hydrofoil::launcher {

// What a rank's process is started with. Descriptors stay the caller's.
struct SpawnRequest {
  std::vector<std::string> command;      // program (searched in PATH) and its arguments
  std::vector<std::string> environment;  // "NAME=value", all of it
  int stdin_fd = 0;
  int stdout_fd = 1;
  int stderr_fd = 2;
  std::vector<int> cores;  // affinity; empty: inherited
};

// Starts a process in a group of its own that the kernel kills when the calling thread ends. Signal dispositions and
// mask are the defaults, except that ignored signals other than SIGPIPE, SIGCHLD and SIGTTOU stay ignored (nohup).
// Throws SystemError that names the program where it cannot be started.
[[nodiscard]] pid_t spawn(const SpawnRequest& request);

// Makes orphaned descendants children of this process, so that end_descendants() finds those that left their group too.
void become_subreaper();

// All processes that descend from this one, at the time of the call.
[[nodiscard]] std::vector<pid_t> descendants();

// Ends all descendants and reaps them: SIGTERM, SIGKILL after `grace_seconds` (0: SIGKILL at once). Gives up on
// processes that survive SIGKILL for 5 s (stuck in the kernel). Returns how many it found.
size_t end_descendants(double grace_seconds);

// "SIGSEGV" for 11; "signal 77" where it has no name.
[[nodiscard]] std::string signal_name(int signal_number);

}  // namespace hydrofoil::launcher
