#pragma once

#include <atomic>
#include <mutex>
#include <vector>

#include "hydrofoil/trace/event.h"

namespace hydrofoil::trace {

// Collects the events of one rank between start() and stop(). Thread-safe; costs one relaxed load while it is off.
class Recorder {
 public:
  [[nodiscard]] bool active() const { return active_.load(std::memory_order_relaxed); }
  // Drops what is left of an earlier recording.
  void start();
  // Nothing where it is off.
  void add(Event event);
  [[nodiscard]] std::vector<Event> stop();

 private:
  std::atomic<bool> active_{false};
  std::mutex mutex_;
  std::vector<Event> events_;
};

}  // namespace hydrofoil::trace
