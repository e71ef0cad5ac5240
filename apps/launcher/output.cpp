#include "apps/launcher/output.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "hydrofoil/base/clock.h"
#include "hydrofoil/base/error.h"

namespace hydrofoil::launcher {
namespace {

constexpr size_t kCongestedBytes = 1 << 20;
// How long a line of another rank waits for rank 0 to end its own: unbuffered Python writes text and line end
// separately.
constexpr double kLinePatienceSeconds = 0.2;

bool same_file(int a, int b) {
  struct stat first {};
  struct stat second {};
  return ::fstat(a, &first) == 0 && ::fstat(b, &second) == 0 && first.st_dev == second.st_dev &&
         first.st_ino == second.st_ino;
}

}  // namespace

OutputSink::OutputSink(int fd) : fd_(fd), is_terminal_(::isatty(fd) != 0) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return;
  is_socket_ = S_ISSOCK(status.st_mode);
  if (!S_ISFIFO(status.st_mode) && !is_terminal_) return;
  // O_NONBLOCK belongs to the open file, which the shell and other programs share; opening it anew makes one of our
  // own.
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  const int own = ::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
  if (own >= 0) {
    fd_ = own;
    owned_ = true;
  }
}

OutputSink::~OutputSink() {
  if (owned_) ::close(fd_);
}

void OutputSink::flush() {
  while (written_ < queue_.size() && !closed_) {
    const char* begin = queue_.data() + written_;
    const size_t size = queue_.size() - written_;
    const ssize_t done = is_socket_ ? ::send(fd_, begin, size, MSG_DONTWAIT | MSG_NOSIGNAL) : ::write(fd_, begin, size);
    if (done >= 0) {
      written_ += static_cast<size_t>(done);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      break;
    } else if (errno != EINTR) {
      closed_ = true;
    }
  }
  if (closed_ || written_ == queue_.size()) {
    queue_.clear();
    written_ = 0;
  } else if (written_ > kCongestedBytes) {
    queue_.erase(0, written_);
    written_ = 0;
  }
}

// Where the cursor of an output stands.
struct OutputRouter::Screen {
  bool mid_line = false;     // rank 0 wrote something without a line end
  bool redrawn = false;      // ... and a carriage return in it: a progress bar
  double since_seconds = 0;  // time of that write
  std::string held[2];       // lines of other ranks that wait, by stream
};

struct OutputRouter::RankStream {
  RankStream(int rank_of_stream, Stream stream_of_rank) : rank(rank_of_stream), stream(stream_of_rank) {}
  ~RankStream() {
    if (spool != nullptr) std::fclose(spool);
  }
  int rank;
  Stream stream;
  LineBuffer lines{kMaxLineBytes};
  std::FILE* spool = nullptr;  // what `collect` holds back
  bool rewound = false;
};

OutputRouter::OutputRouter(OutputMode mode, int num_ranks, const std::optional<std::string>& log_dir) : mode_(mode) {
  for (const int i : {0, 1}) {
    sinks_[i] = std::make_unique<OutputSink>(i == 0 ? STDOUT_FILENO : STDERR_FILENO);
    screens_[i] = std::make_unique<Screen>();
  }
  screen_of_[0] = screens_[0].get();
  screen_of_[1] = same_file(STDOUT_FILENO, STDERR_FILENO) ? screens_[0].get() : screens_[1].get();
  for (int rank = 0; rank < num_ranks; ++rank) {
    streams_.push_back(std::make_unique<RankStream>(rank, Stream::kOut));
    streams_.push_back(std::make_unique<RankStream>(rank, Stream::kError));
    last_.emplace_back(kLastLines);
  }
  if (mode == OutputMode::kCollect) {
    for (const auto& stream : streams_) {
      if (stream->rank == 0) continue;
      stream->spool = std::tmpfile();
      if (stream->spool == nullptr) throw_system_error("hydrofoil run", "temporary file for --output collect", errno);
    }
  }
  if (!log_dir) return;
  std::error_code error;
  std::filesystem::create_directories(*log_dir, error);
  if (error) throw_system_error("hydrofoil run", "create " + *log_dir, error.value());
  for (int rank = 0; rank < num_ranks; ++rank) {
    const std::string path = *log_dir + "/rank_" + std::to_string(rank) + ".log";
    logs_.push_back(std::fopen(path.c_str(), "we"));
    if (logs_.back() == nullptr) throw_system_error("hydrofoil run", "create " + path, errno);
    std::setvbuf(logs_.back(), nullptr, _IONBF, 0);  // a reader, or a crash of ours, finds all of it
  }
}

OutputRouter::~OutputRouter() {
  for (std::FILE* log : logs_) {
    if (log != nullptr) std::fclose(log);
  }
}

OutputRouter::RankStream& OutputRouter::at(int rank, Stream stream) {
  return *streams_[static_cast<size_t>(rank) * 2 + static_cast<size_t>(stream)];
}

void OutputRouter::receive(int rank, Stream stream, std::string_view bytes) {
  write_log(rank, bytes);
  const bool passed_on = mode_ == OutputMode::kRaw || (rank == 0 && mode_ != OutputMode::kPrefix);
  if (passed_on) write_raw(stream, bytes);
  RankStream& source = at(rank, stream);
  source.lines.feed(bytes, [&](std::string_view line) { on_line(source, line); });
}

void OutputRouter::finish_rank(int rank) {
  for (const Stream stream : {Stream::kOut, Stream::kError}) {
    RankStream& source = at(rank, stream);
    source.lines.finish([&](std::string_view line) { on_line(source, line); });
  }
}

void OutputRouter::on_line(RankStream& source, std::string_view line) {
  last_[static_cast<size_t>(source.rank)].add(line);
  const bool passed_on = mode_ == OutputMode::kRaw || (source.rank == 0 && mode_ != OutputMode::kPrefix);
  if (passed_on) return;
  std::string text = "[rank " + std::to_string(source.rank) + "] ";
  text.append(line).append("\n");
  if (source.spool == nullptr) {
    write_line(source.stream, text);
  } else if (std::fwrite(text.data(), 1, text.size(), source.spool) != text.size()) {
    const std::string reason = std::strerror(errno);
    std::fclose(source.spool);
    source.spool = nullptr;
    message("hydrofoil run: cannot hold output back (" + reason + "); printing it at once from here on");
    write_line(source.stream, text);
  }
}

void OutputRouter::write_log(int rank, std::string_view bytes) {
  if (logs_.empty()) return;
  std::FILE*& log = logs_[static_cast<size_t>(rank)];
  if (log == nullptr || std::fwrite(bytes.data(), 1, bytes.size(), log) == bytes.size()) return;
  const std::string reason = std::strerror(errno);
  std::fclose(log);
  log = nullptr;
  message("hydrofoil run: the log of rank " + std::to_string(rank) + " ends here: " + reason);
}

void OutputRouter::write_raw(Stream stream, std::string_view bytes) {
  if (bytes.empty()) return;
  const auto index = static_cast<size_t>(stream);
  Screen& screen = *screen_of_[index];
  sinks_[index]->append(bytes);
  const size_t line_end = bytes.rfind('\n');
  const bool has_line_end = line_end != std::string_view::npos;
  const std::string_view open = has_line_end ? bytes.substr(line_end + 1) : bytes;
  const bool returned = open.find('\r') != std::string_view::npos;
  screen.redrawn = returned || (!has_line_end && screen.redrawn);
  screen.mid_line = !open.empty();
  screen.since_seconds = monotonic_seconds();
  if (!screen.mid_line) release_held(screen);
}

void OutputRouter::write_line(Stream stream, std::string_view line) {
  const auto index = static_cast<size_t>(stream);
  Screen& screen = *screen_of_[index];
  if (screen.mid_line) {
    screen.held[index].append(line);
  } else {
    sinks_[index]->append(line);
  }
}

void OutputRouter::break_line(Screen& screen, OutputSink& sink) {
  if (!screen.mid_line) return;
  // A progress bar draws itself again; its remains on a terminal would only disturb.
  sink.append(screen.redrawn && sink.is_terminal() ? "\r\x1b[K" : "\n");
  screen.mid_line = false;
  screen.redrawn = false;
}

void OutputRouter::release_held(Screen& screen) {
  for (const size_t index : {0, 1}) {
    if (screen.held[index].empty()) continue;
    break_line(screen, *sinks_[index]);
    sinks_[index]->append(screen.held[index]);
    screen.held[index].clear();
  }
}

void OutputRouter::message(const std::string& line) {
  Screen& screen = *screen_of_[1];
  release_held(screen);
  break_line(screen, *sinks_[1]);
  sinks_[1]->append(line + "\n");
}

bool OutputRouter::release_collected() {
  for (const auto& screen : screens_) release_held(*screen);
  for (const auto& stream : streams_) {
    if (stream->spool == nullptr) continue;
    const auto index = static_cast<size_t>(stream->stream);
    break_line(*screen_of_[index], *sinks_[index]);
    if (!stream->rewound) std::rewind(stream->spool);
    stream->rewound = true;
    char buffer[1 << 16];
    while (!congested()) {
      const size_t got = std::fread(buffer, 1, sizeof(buffer), stream->spool);
      sinks_[index]->append({buffer, got});
      if (got == 0) break;
    }
    if (congested()) return false;
    std::fclose(stream->spool);
    stream->spool = nullptr;
  }
  return true;
}

void OutputRouter::flush() {
  for (const auto& screen : screens_) {
    const bool waits = !screen->held[0].empty() || !screen->held[1].empty();
    const double waited = monotonic_seconds() - screen->since_seconds;
    const bool full = screen->held[0].size() + screen->held[1].size() > kCongestedBytes;
    if (waits && (waited >= kLinePatienceSeconds || full)) release_held(*screen);
  }
  for (const auto& sink : sinks_) sink->flush();
}

const std::deque<std::string>& OutputRouter::last_lines(int rank) const {
  return last_[static_cast<size_t>(rank)].lines();
}

bool OutputRouter::congested() const {
  return sinks_[0]->pending_bytes() > kCongestedBytes || sinks_[1]->pending_bytes() > kCongestedBytes;
}

bool OutputRouter::drained() const { return sinks_[0]->pending_bytes() == 0 && sinks_[1]->pending_bytes() == 0; }

std::optional<double> OutputRouter::next_flush_seconds() const {
  std::optional<double> next;
  for (const auto& screen : screens_) {
    if (screen->held[0].empty() && screen->held[1].empty()) continue;
    const double left = screen->since_seconds + kLinePatienceSeconds - monotonic_seconds();
    next = std::min(next.value_or(left), std::max(left, 0.0));
  }
  return next;
}

}  // namespace hydrofoil::launcher
