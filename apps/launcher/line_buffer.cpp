#include "apps/launcher/line_buffer.h"

#include <algorithm>

namespace hydrofoil::launcher {
namespace {

// What is left of a line whose carriage returns a terminal has obeyed; one at the very end waits for what follows.
std::string_view visible(std::string_view line) {
  if (line.empty()) return line;
  const size_t overwritten = line.substr(0, line.size() - 1).rfind('\r');
  return overwritten == std::string_view::npos ? line : line.substr(overwritten + 1);
}

std::string_view without_carriage_return(std::string_view line) {
  while (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  return visible(line);
}

}  // namespace

void LineBuffer::feed(std::string_view bytes, const std::function<void(std::string_view)>& on_line) {
  while (!bytes.empty()) {
    const size_t line_end = bytes.find('\n');
    const bool complete = line_end != std::string_view::npos;
    const size_t room = max_line_bytes_ - partial_.size();
    const size_t taken = std::min(complete ? line_end : bytes.size(), room);
    partial_.append(bytes.substr(0, taken));
    bytes.remove_prefix(taken);
    if (complete && taken == line_end) {
      bytes.remove_prefix(1);
      on_line(without_carriage_return(partial_));
      partial_.clear();
      continue;
    }
    // A progress bar never ends its line: forgetting what it overwrote keeps it short.
    partial_.erase(0, partial_.size() - visible(partial_).size());
    if (partial_.size() >= max_line_bytes_) {
      on_line(partial_);
      partial_.clear();
    }
  }
}

void LineBuffer::finish(const std::function<void(std::string_view)>& on_line) {
  const std::string_view line = without_carriage_return(partial_);
  if (!line.empty()) on_line(line);
  partial_.clear();
}

void LastLines::add(std::string_view line) {
  std::string text(line.substr(0, kMaxBytes));
  if (line.size() > kMaxBytes) text += " ... (" + std::to_string(line.size()) + " bytes)";
  lines_.push_back(std::move(text));
  if (lines_.size() > max_lines_) lines_.pop_front();
}

}  // namespace hydrofoil::launcher
