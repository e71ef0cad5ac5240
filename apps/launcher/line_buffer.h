#pragma once

#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace hydrofoil::launcher {

// Cuts a stream of bytes into lines, as a terminal would show them: text in front of a carriage return is overwritten,
// thus dropped. Lines without an end are cut at max_line_bytes, so memory is bounded.
class LineBuffer {
 public:
  explicit LineBuffer(size_t max_line_bytes) : max_line_bytes_(max_line_bytes) {}

  // Calls `on_line` for each line that `bytes` complete, without its line end.
  void feed(std::string_view bytes, const std::function<void(std::string_view)>& on_line);

  // Calls `on_line` for what is left without a line end, if anything is.
  void finish(const std::function<void(std::string_view)>& on_line);

 private:
  size_t max_line_bytes_;
  std::string partial_;
};

// The last lines that were added, each cut to kMaxBytes.
class LastLines {
 public:
  static constexpr size_t kMaxBytes = 2000;
  explicit LastLines(size_t max_lines) : max_lines_(max_lines) {}
  void add(std::string_view line);
  [[nodiscard]] const std::deque<std::string>& lines() const { return lines_; }

 private:
  size_t max_lines_;
  std::deque<std::string> lines_;
};

}  // namespace hydrofoil::launcher
