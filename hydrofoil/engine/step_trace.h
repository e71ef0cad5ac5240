#pragma once

#include <cstdint>
#include <memory>

#include "hydrofoil/comm/group.h"
#include "hydrofoil/engine/profiling_options.h"
#include "hydrofoil/trace/recorder.h"

namespace hydrofoil::engine {

// Takes the trace of some optimizer steps of an engine (docs/profiling.md): starts the recorder before the first, and
// after the last collects the events of all ranks and writes one file on rank 0.
class StepTrace {
 public:
  // Observes both groups; nothing is recorded before begin().
  StepTrace(TraceOptions options, const comm::Group& gather_group, const comm::Group& reduce_group);
  // One line of log on rank 0 where the steps did not all come.
  ~StepTrace();
  StepTrace(const StepTrace&) = delete;
  StepTrace& operator=(const StepTrace&) = delete;

  [[nodiscard]] const std::shared_ptr<trace::Recorder>& recorder() const { return recorder_; }
  // Optimizer step `step` (from 1) begins. Collective where it is the first that is traced: the ranks' clocks are
  // compared at the end of a barrier.
  void begin_step(const comm::Group& group, int64_t step);
  // It has ended. Collective where it is the last: throws SystemError where the file cannot be written, on every rank.
  void end_step(const comm::Group& group, int64_t step);

 private:
  void write(const comm::Group& group);

  TraceOptions options_;
  std::shared_ptr<trace::Recorder> recorder_ = std::make_shared<trace::Recorder>();
  int64_t origin_ns_ = 0;
  int64_t step_begin_ns_ = 0;
  int64_t last_step_ = 0;
  int rank_ = 0;
  bool written_ = false;
};

}  // namespace hydrofoil::engine
