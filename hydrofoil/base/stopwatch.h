#pragma once

#include <cstdint>

namespace hydrofoil {

// Adds up the time between start() and stop(), on the monotonic clock.
class Stopwatch {
 public:
  // Throws InvalidArgument where it runs already.
  void start();
  // `alone`: what was measured before is dropped. Throws InvalidArgument where it does not run.
  void stop(bool alone = false);
  [[nodiscard]] bool running() const { return start_ns_ != 0; }

  // Milliseconds since the last reset; what still runs counts up to now.
  [[nodiscard]] double elapsed_ms() const;
  // The same, divided by the number of stops since the last reset; 0 without one.
  [[nodiscard]] double mean_ms() const;
  // Begins again at 0; where it runs, from now.
  void reset();

  // Nanoseconds up to the last stop since it was made: a reset does not change them.
  [[nodiscard]] int64_t total_ns() const { return total_ns_; }

 private:
  int64_t start_ns_ = 0;  // 0: it does not run
  int64_t total_ns_ = 0;
  int64_t reset_total_ns_ = 0;
  int64_t num_stops_ = 0;  // since the last reset
};

// Runs a stopwatch for the time of a scope; none where `watch` is null.
class ScopedStopwatch {
 public:
  explicit ScopedStopwatch(Stopwatch* watch) : watch_(watch) {
    if (watch_ != nullptr) watch_->start();
  }
  ~ScopedStopwatch() {
    if (watch_ != nullptr && watch_->running()) watch_->stop();
  }
  ScopedStopwatch(const ScopedStopwatch&) = delete;
  ScopedStopwatch& operator=(const ScopedStopwatch&) = delete;

 private:
  Stopwatch* watch_;
};

}  // namespace hydrofoil
