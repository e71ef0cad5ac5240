#pragma once

#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "apps/launcher/line_buffer.h"
#include "apps/launcher/run_options.h"

namespace hydrofoil::launcher {

// A descriptor of this process (standard output or error) that is written without ever waiting for its reader: what
// does not fit is queued.
class OutputSink {
 public:
  explicit OutputSink(int fd);
  ~OutputSink();
  OutputSink(const OutputSink&) = delete;
  OutputSink& operator=(const OutputSink&) = delete;

  void append(std::string_view bytes) { queue_.append(bytes); }
  // Writes as much of the queue as fits now.
  void flush();
  [[nodiscard]] size_t pending_bytes() const { return queue_.size() - written_; }
  // True once the reader is gone (EPIPE) or writing failed; everything is then dropped.
  [[nodiscard]] bool closed() const { return closed_; }
  [[nodiscard]] bool is_terminal() const { return is_terminal_; }
  [[nodiscard]] int fd() const { return fd_; }

 private:
  int fd_;
  bool owned_ = false;
  bool is_socket_ = false;
  bool is_terminal_ = false;
  bool closed_ = false;
  std::string queue_;
  size_t written_ = 0;
};

enum class Stream { kOut = 0, kError = 1 };

// Sends the bytes of all ranks to standard output and error in the way that OutputMode says, to the log files, and
// keeps the last lines of each rank.
class OutputRouter {
 public:
  static constexpr size_t kMaxLineBytes = 1 << 20;
  static constexpr size_t kLastLines = 20;

  // Opens the log files. Throws SystemError where one cannot be created.
  OutputRouter(OutputMode mode, int num_ranks, const std::optional<std::string>& log_dir);
  ~OutputRouter();

  void receive(int rank, Stream stream, std::string_view bytes);
  // The rank has ended: lines without an end are complete.
  void finish_rank(int rank);
  // A message of the launcher itself, to standard error, on a line of its own.
  void message(const std::string& line);
  // All ranks have ended: moves on what `collect` held back. False where a slow reader makes another call necessary.
  [[nodiscard]] bool release_collected();
  // Writes what fits, after moving lines on that waited for rank 0 to end its own.
  void flush();

  [[nodiscard]] const std::deque<std::string>& last_lines(int rank) const;
  [[nodiscard]] const OutputSink& sink(Stream stream) const { return *sinks_[static_cast<size_t>(stream)]; }
  // True where so much waits for the readers of our output that nothing more should be received.
  [[nodiscard]] bool congested() const;
  [[nodiscard]] bool drained() const;
  // Seconds until flush() has something to do by the clock; nullopt: nothing waits.
  [[nodiscard]] std::optional<double> next_flush_seconds() const;

 private:
  struct Screen;
  struct RankStream;

  void write_line(Stream stream, std::string_view line);
  void write_raw(Stream stream, std::string_view bytes);
  void break_line(Screen& screen, OutputSink& sink);
  void release_held(Screen& screen);
  void write_log(int rank, std::string_view bytes);
  void on_line(RankStream& source, std::string_view line);
  RankStream& at(int rank, Stream stream);

  OutputMode mode_;
  std::unique_ptr<OutputSink> sinks_[2];
  std::unique_ptr<Screen> screens_[2];
  Screen* screen_of_[2];  // both the same where both streams end in one file or terminal
  std::vector<std::unique_ptr<RankStream>> streams_;
  std::vector<LastLines> last_;
  std::vector<std::FILE*> logs_;
};

}  // namespace hydrofoil::launcher
