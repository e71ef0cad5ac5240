#include "apps/launcher/supervisor.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <optional>
#include <utility>

#include "apps/launcher/output.h"
#include "apps/launcher/process.h"
#include "hydrofoil/base/clock.h"
#include "hydrofoil/base/error.h"

namespace hydrofoil::launcher {
namespace {

constexpr int kSignalBase = 128;

// A descriptor that is closed with its owner.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() { close(); }
  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] bool open() const { return fd_ >= 0; }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_ = -1;
};

struct Pipe {
  Descriptor read_end;
  Descriptor write_end;
};

Pipe make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw_system_error("hydrofoil run", "pipe", errno);
  Pipe pipe{Descriptor(ends[0]), Descriptor(ends[1])};
  // Only our end: the rank's own writes must wait for us as they would for a terminal.
  if (::fcntl(ends[0], F_SETFL, O_NONBLOCK) != 0) throw_system_error("hydrofoil run", "fcntl", errno);
  return pipe;
}

std::vector<std::string> own_environment() {
  std::vector<std::string> entries;
  for (char** entry = environ; *entry != nullptr; ++entry) entries.emplace_back(*entry);
  return entries;
}

struct RankProcess {
  pid_t pid = -1;  // -1: not started, or reaped
  int status = 0;  // as waitpid gives it, once reaped
  std::array<Descriptor, 2> streams;
};

bool failed(int status) { return !WIFEXITED(status) || WEXITSTATUS(status) != 0; }

int exit_code(int status) { return WIFSIGNALED(status) ? kSignalBase + WTERMSIG(status) : WEXITSTATUS(status); }

std::string describe(int status) {
  if (WIFSIGNALED(status)) return "signal " + signal_name(WTERMSIG(status));
  return "exit code " + std::to_string(WEXITSTATUS(status));
}

class Supervisor {
 public:
  Supervisor(const RunOptions& options, const RunPlan& plan, int front_fd)
      : options_(options),
        plan_(plan),
        front_fd_(front_fd),
        router_(options.output, plan.num_ranks, options.log_dir),
        ranks_(static_cast<size_t>(plan.num_ranks)) {}

  void start_ranks(const std::string& python);
  int run();
  void print(const std::string& line) { router_.message(line); }

 private:
  [[nodiscard]] bool any_running() const;
  void signal_running(int number);
  void wait_for_events();
  void handle_signal(int number);
  void reap();
  void read_stream(int rank, Stream stream, bool until_empty);
  void rank_ended(int rank, int status);
  void begin_ending();
  void drain_output();
  void report_failure();
  [[nodiscard]] int result() const;
  [[nodiscard]] int poll_milliseconds() const;

  const RunOptions& options_;
  const RunPlan& plan_;
  int front_fd_;
  OutputRouter router_;
  std::vector<RankProcess> ranks_;
  Descriptor signals_;
  std::optional<int> failed_rank_;  // the first that failed on its own account
  int stop_signal_ = 0;             // SIGINT, SIGTERM, SIGHUP or SIGPIPE once one ended the run
  std::optional<double> kill_at_;   // set once the ranks are being ended
  bool killed_ = false;
  bool front_gone_ = false;
};

void Supervisor::start_ranks(const std::string& python) {
  sigset_t mask;
  sigemptyset(&mask);
  for (const int number : {SIGCHLD, SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGTSTP, SIGCONT})
    sigaddset(&mask, number);
  signals_ = Descriptor(::signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC));
  if (!signals_.open()) throw_system_error("hydrofoil run", "signalfd", errno);

  const std::vector<std::string> inherited = own_environment();
  const Descriptor nothing(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!nothing.open()) throw_system_error("hydrofoil run", "open /dev/null", errno);
  // A rank cannot read the terminal: it is not in the foreground group, so that Ctrl-C comes once, through us.
  const bool pass_stdin = ::fcntl(STDIN_FILENO, F_GETFD) >= 0 && ::isatty(STDIN_FILENO) == 0;
  for (int rank = 0; rank < plan_.num_ranks; ++rank) {
    std::array<Pipe, 2> pipes = {make_pipe(), make_pipe()};
    SpawnRequest request;
    request.command = rank_command(options_, python, rank);
    request.environment = merge_environment(inherited, rank_variables(plan_, rank));
    request.stdin_fd = rank == 0 && pass_stdin ? STDIN_FILENO : nothing.get();
    request.stdout_fd = pipes[0].write_end.get();
    request.stderr_fd = pipes[1].write_end.get();
    if (plan_.bind_cores) request.cores = cores_of_rank(plan_.cores, plan_.num_ranks, rank);
    RankProcess& process = ranks_[static_cast<size_t>(rank)];
    process.pid = spawn(request);
    for (const size_t i : {0, 1}) process.streams[i] = std::move(pipes[i].read_end);
  }
}

bool Supervisor::any_running() const {
  return std::any_of(ranks_.begin(), ranks_.end(), [](const RankProcess& rank) { return rank.pid > 0; });
}

void Supervisor::signal_running(int number) {
  for (const RankProcess& rank : ranks_) {
    if (rank.pid > 0) ::kill(-rank.pid, number);
  }
}

int Supervisor::run() {
  while (any_running() && !front_gone_) {
    wait_for_events();
    router_.flush();
    if (router_.sink(Stream::kOut).closed() && stop_signal_ == 0) {
      stop_signal_ = SIGPIPE;
      begin_ending();
    }
    if (kill_at_ && !killed_ && monotonic_seconds() >= *kill_at_) {
      signal_running(SIGKILL);
      killed_ = true;
    }
  }
  if (front_gone_) {
    end_descendants(0);
    return kExitSystem;
  }
  const double grace = killed_ || kill_at_ ? 0 : options_.grace_seconds;
  const size_t left = end_descendants(grace);
  for (int rank = 0; rank < plan_.num_ranks; ++rank) {
    for (const Stream stream : {Stream::kOut, Stream::kError}) read_stream(rank, stream, true);
    router_.finish_rank(rank);
  }
  if (left > 0 && !failed_rank_ && stop_signal_ == 0) {
    print("hydrofoil run: ended " + std::to_string(left) + " processes that the ranks had left behind");
  }
  drain_output();
  return result();
}

int Supervisor::poll_milliseconds() const {
  std::optional<double> wait = router_.next_flush_seconds();
  if (kill_at_ && !killed_) {
    const double left = std::max(0.0, *kill_at_ - monotonic_seconds());
    wait = std::min(wait.value_or(left), left);
  }
  return wait ? static_cast<int>(std::ceil(*wait * 1000)) : -1;
}

void Supervisor::wait_for_events() {
  struct Source {
    int rank;
    Stream stream;
  };
  std::vector<pollfd> polled = {{signals_.get(), POLLIN, 0}, {front_fd_, POLLIN, 0}};
  for (const Stream stream : {Stream::kOut, Stream::kError}) {
    const OutputSink& sink = router_.sink(stream);
    polled.push_back({sink.pending_bytes() > 0 ? sink.fd() : -1, POLLOUT, 0});
  }
  const size_t first_source = polled.size();
  std::vector<Source> sources;
  for (int rank = 0; rank < plan_.num_ranks && !router_.congested(); ++rank) {
    for (const Stream stream : {Stream::kOut, Stream::kError}) {
      const Descriptor& descriptor = ranks_[static_cast<size_t>(rank)].streams[static_cast<size_t>(stream)];
      if (!descriptor.open()) continue;
      polled.push_back({descriptor.get(), POLLIN, 0});
      sources.push_back({rank, stream});
    }
  }
  if (::poll(polled.data(), polled.size(), poll_milliseconds()) < 0 && errno != EINTR) {
    throw_system_error("hydrofoil run", "poll", errno);
  }
  if (polled[1].revents != 0) front_gone_ = true;
  for (size_t i = 0; i < sources.size(); ++i) {
    if (polled[first_source + i].revents != 0) read_stream(sources[i].rank, sources[i].stream, false);
  }
  signalfd_siginfo info{};
  while (::read(signals_.get(), &info, sizeof(info)) == sizeof(info)) handle_signal(static_cast<int>(info.ssi_signo));
}

void Supervisor::handle_signal(int number) {
  switch (number) {
    case SIGCHLD:
      reap();
      break;
    case SIGINT:
    case SIGTERM:
    case SIGHUP:
      if (stop_signal_ != 0) {
        signal_running(SIGKILL);
        killed_ = true;
        break;
      }
      stop_signal_ = number;
      signal_running(number);
      break;
    case SIGTSTP:
      signal_running(SIGSTOP);
      break;
    default:
      signal_running(number);
  }
}

void Supervisor::reap() {
  struct Ended {
    int rank;
    int status;
  };
  std::vector<Ended> ended;
  int status = 0;
  pid_t pid;
  while ((pid = ::waitpid(-1, &status, WNOHANG)) > 0) {
    for (size_t rank = 0; rank < ranks_.size(); ++rank) {
      if (ranks_[rank].pid != pid) continue;
      ranks_[rank].pid = -1;
      ended.push_back({static_cast<int>(rank), status});
    }
  }
  // Ranks that ended together: one that a signal ended is rather the cause than one that noticed its peer's end.
  std::stable_sort(ended.begin(), ended.end(), [](const Ended& a, const Ended& b) {
    return std::make_pair(!WIFSIGNALED(a.status), a.rank) < std::make_pair(!WIFSIGNALED(b.status), b.rank);
  });
  for (const Ended& end : ended) rank_ended(end.rank, end.status);
}

void Supervisor::rank_ended(int rank, int status) {
  ranks_[static_cast<size_t>(rank)].status = status;
  if (!failed(status) || kill_at_) return;
  if (stop_signal_ == 0) failed_rank_ = rank;
  begin_ending();
}

void Supervisor::begin_ending() {
  if (kill_at_) return;
  signal_running(SIGTERM);
  signal_running(SIGCONT);  // a stopped process takes SIGTERM only when it goes on
  kill_at_ = monotonic_seconds() + options_.grace_seconds;
}

void Supervisor::read_stream(int rank, Stream stream, bool until_empty) {
  Descriptor& descriptor = ranks_[static_cast<size_t>(rank)].streams[static_cast<size_t>(stream)];
  char buffer[1 << 16];
  while (descriptor.open()) {
    const ssize_t got = ::read(descriptor.get(), buffer, sizeof(buffer));
    if (got > 0) {
      router_.receive(rank, stream, {buffer, static_cast<size_t>(got)});
      if (!until_empty) return;
    } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
      descriptor.close();
    } else if (errno == EAGAIN) {
      return;
    }
  }
}

void Supervisor::report_failure() {
  if (!failed_rank_) return;
  const int rank = *failed_rank_;
  const auto& lines = router_.last_lines(rank);
  print("hydrofoil run: rank " + std::to_string(rank) + " failed with " +
        describe(ranks_[static_cast<size_t>(rank)].status) +
        (lines.empty() ? "; it printed nothing" : "; its last lines:"));
  for (const auto& line : lines) print("  " + line);
}

void Supervisor::drain_output() {
  bool released = false;
  while (!front_gone_) {
    if (!released && (released = router_.release_collected())) report_failure();
    router_.flush();
    if (released && router_.drained()) return;
    std::array<pollfd, 4> polled = {
        {{signals_.get(), POLLIN, 0}, {front_fd_, POLLIN, 0}, {-1, POLLOUT, 0}, {-1, POLLOUT, 0}}};
    for (const Stream stream : {Stream::kOut, Stream::kError}) {
      const OutputSink& sink = router_.sink(stream);
      if (sink.pending_bytes() > 0) polled[2 + static_cast<size_t>(stream)].fd = sink.fd();
    }
    if (::poll(polled.data(), polled.size(), -1) < 0 && errno != EINTR) return;
    front_gone_ = polled[1].revents != 0;
    signalfd_siginfo info{};
    while (::read(signals_.get(), &info, sizeof(info)) == sizeof(info)) {
      const int number = static_cast<int>(info.ssi_signo);
      if (number != SIGINT && number != SIGTERM && number != SIGHUP) continue;
      if (stop_signal_ == 0) stop_signal_ = number;
      return;  // nobody reads our output: do not wait for it
    }
  }
}

int Supervisor::result() const {
  if (failed_rank_) return exit_code(ranks_[static_cast<size_t>(*failed_rank_)].status);
  return stop_signal_ != 0 ? kSignalBase + stop_signal_ : 0;
}

}  // namespace

int supervise(const RunOptions& options, const RunPlan& plan, const std::string& python, int front_fd) {
  Supervisor supervisor(options, plan, front_fd);
  if (!options.quiet) supervisor.print(describe_plan(plan));
  try {
    supervisor.start_ranks(python);
    return supervisor.run();
  } catch (...) {
    end_descendants(0);
    throw;
  }
}

}  // namespace hydrofoil::launcher
