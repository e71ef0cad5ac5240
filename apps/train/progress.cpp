#include "apps/train/progress.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>

#include "apps/launcher/terminal.h"
#include "hydrofoil/base/environment.h"

namespace hydrofoil::train {
namespace {

using launcher::with_commas;

constexpr int64_t kMinBarColumns = 10;

// A launcher that pipes its ranks' output to a terminal says so in HYDROFOIL_TERMINAL.
std::optional<int64_t> output_columns() {
  const auto behind_pipe = environment_int("HYDROFOIL_TERMINAL");
  return behind_pipe ? behind_pipe : launcher::terminal_columns();
}

template <typename... Args>
std::string format(const char* pattern, Args... args) {
  char text[256];
  std::snprintf(text, sizeof(text), pattern, args...);
  return text;
}

}  // namespace

double bits(double nats) { return nats / std::log(2.0); }

std::string clock_text(double seconds) {
  const auto total = static_cast<int64_t>(std::llround(std::max(0.0, seconds)));
  const int64_t hours = total / 3600, minutes = total / 60 % 60, rest = total % 60;
  if (hours > 0) return format("%ld:%02ld:%02ld", hours, minutes, rest);
  return format("%02ld:%02ld", minutes, rest);
}

Progress::Progress(int64_t first_step, int64_t num_steps, int64_t interval, std::string unit, bool visible)
    : first_step_(first_step),
      num_steps_(num_steps),
      interval_(interval),
      unit_(std::move(unit)),
      visible_(visible),
      columns_(visible ? output_columns() : std::nullopt) {}

Progress::~Progress() { close(); }

void Progress::say(const std::string& text) {
  if (!visible_) return;
  if (!bar_.empty()) std::cout << "\r\x1b[K";
  std::cout << text << '\n' << bar_ << std::flush;
}

double Progress::elapsed() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
}

std::string Progress::time_left(int64_t step) const {
  return clock_text(elapsed() / static_cast<double>(step - first_step_) * static_cast<double>(num_steps_ - step));
}

void Progress::draw(const std::string& facts, int64_t step) {
  const std::string head = format("%3ld%%|", 100 * step / num_steps_);
  const std::string tail = format("| %ld/%ld, ", step, num_steps_) + facts +
                           format(" [%s, %s left]", clock_text(elapsed()).c_str(), time_left(step).c_str());
  const auto used = static_cast<int64_t>(head.size() + tail.size());
  const int64_t room = std::max(kMinBarColumns, *columns_ - 1 - used);
  const int64_t filled = room * step / num_steps_;
  bar_ = (head + std::string(filled, '#') + std::string(room - filled, ' ') + tail).substr(0, *columns_ - 1);
  std::cout << '\r' << bar_ << "\x1b[K" << std::flush;
}

void Progress::step(const StepRow& row) {
  if (!visible_) return;
  const std::string facts =
      format(columns_ ? "loss %.3f, %.2f bits/%s, %s tokens/s, %s MiB a rank"
                      : "loss %.3f  %.2f bits/%s  %s tokens/s  %s MiB a rank",
             row.loss, bits(row.loss), unit_.c_str(), with_commas(std::llround(row.tokens_per_s)).c_str(),
             with_commas(std::llround(row.memory_mib)).c_str());
  if (columns_) return draw(facts, row.step);
  if (row.step % interval_ != 0 && row.step != num_steps_) return;
  std::cout << format("step %5ld/%ld  ", row.step, num_steps_) << facts << "  " << time_left(row.step) << " left"
            << std::endl;
}

void Progress::close() {
  if (!bar_.empty()) std::cout << std::endl;
  bar_.clear();
}

}  // namespace hydrofoil::train
