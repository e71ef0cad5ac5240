#include "hydrofoil/trace/recorder.h"

#include <utility>

#include "hydrofoil/base/error.h"

namespace hydrofoil::trace {

const char* lane_name(Lane lane) {
  switch (lane) {
    case Lane::kStep:
      return "step";
    case Lane::kCompute:
      return "compute";
    case Lane::kGather:
      return "gather";
    case Lane::kReduce:
      return "reduce";
  }
  HYDROFOIL_ASSERT(false, "lane ", static_cast<int>(lane));
}

void Recorder::start() {
  const std::lock_guard lock(mutex_);
  events_.clear();
  active_ = true;
}

void Recorder::add(Event event) {
  const std::lock_guard lock(mutex_);
  if (active_) events_.push_back(std::move(event));
}

std::vector<Event> Recorder::stop() {
  const std::lock_guard lock(mutex_);
  active_ = false;
  return std::exchange(events_, {});
}

}  // namespace hydrofoil::trace
