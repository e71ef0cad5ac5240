#include "hydrofoil/base/stopwatch.h"

#include "hydrofoil/base/clock.h"
#include "hydrofoil/base/error.h"

namespace hydrofoil {

void Stopwatch::start() {
  HYDROFOIL_CHECK_ARG(!running(), "Stopwatch::start", "the stopwatch runs already; call stop() before");
  start_ns_ = monotonic_ns();
}

void Stopwatch::stop(bool alone) {
  HYDROFOIL_CHECK_ARG(running(), "Stopwatch::stop", "the stopwatch does not run; call start() before");
  if (alone) {
    reset_total_ns_ = total_ns_;
    num_stops_ = 0;
  }
  total_ns_ += monotonic_ns() - start_ns_;
  start_ns_ = 0;
  ++num_stops_;
}

double Stopwatch::elapsed_ms() const {
  const int64_t runs_ns = running() ? monotonic_ns() - start_ns_ : 0;
  return 1e-6 * static_cast<double>(total_ns_ - reset_total_ns_ + runs_ns);
}

double Stopwatch::mean_ms() const {
  if (num_stops_ == 0) return 0.0;
  return 1e-6 * static_cast<double>(total_ns_ - reset_total_ns_) / static_cast<double>(num_stops_);
}

void Stopwatch::reset() {
  if (running()) {
    const int64_t now = monotonic_ns();
    total_ns_ += now - start_ns_;
    start_ns_ = now;
  }
  reset_total_ns_ = total_ns_;
  num_stops_ = 0;
}

}  // namespace hydrofoil
