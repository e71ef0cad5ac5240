#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace hydrofoil::train {

// One optimizer step, as progress and loss.csv show it.
struct StepRow {
  int64_t step = 0;  // steps that are done
  int64_t tokens = 0;
  double loss = 0.0;  // nats a token, mean over the global batch
  double lr = 0.0;    // of the first group, for the next step
  double grad_norm = 0.0;
  double tokens_per_s = 0.0;
  double memory_mib = 0.0;  // the most of any rank
};

// Nats to bits: "bits per byte" where a token is a byte.
[[nodiscard]] double bits(double nats);

// "03:05", "1:02:03".
[[nodiscard]] std::string clock_text(double seconds);

// The state of a run on standard output: a bar on a terminal, a line every `interval` steps elsewhere.
class Progress {
 public:
  // `unit`: "byte" or "token". Prints nothing unless `visible`.
  Progress(int64_t first_step, int64_t num_steps, int64_t interval, std::string unit, bool visible);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void say(const std::string& text);  // above the bar
  void step(const StepRow& row);
  void close();  // leaves the bar as it stands

 private:
  [[nodiscard]] double elapsed() const;  // seconds
  [[nodiscard]] std::string time_left(int64_t step) const;
  void draw(const std::string& facts, int64_t step);

  int64_t first_step_;
  int64_t num_steps_;
  int64_t interval_;
  std::string unit_;
  bool visible_;
  std::optional<int64_t> columns_;  // of the terminal; none: not one
  std::string bar_;                 // as it stands on the terminal
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
};

}  // namespace hydrofoil::train
