#include "hydrofoil/engine/step_trace.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "hydrofoil/base/clock.h"
#include "hydrofoil/base/log.h"
#include "hydrofoil/checkpoint/agreement.h"
#include "hydrofoil/comm/observer.h"
#include "hydrofoil/storage/file.h"
#include "hydrofoil/trace/chrome_trace.h"

namespace hydrofoil::engine {
namespace {

class LaneObserver : public comm::OperationObserver {
 public:
  LaneObserver(std::shared_ptr<trace::Recorder> recorder, trace::Lane lane)
      : recorder_(std::move(recorder)), lane_(lane) {}

  void on_operation(const comm::EndedOperation& operation) override {
    if (!recorder_->active()) return;
    recorder_->add({.lane = lane_,
                    .what = comm::op_kind_name(operation.kind),
                    .subject = std::string(operation.unit),
                    .begin_ns = operation.begin_ns,
                    .end_ns = operation.end_ns,
                    .bytes = operation.message_bytes});
  }

 private:
  std::shared_ptr<trace::Recorder> recorder_;
  trace::Lane lane_;
};

// The texts of all ranks, in rank order; collective.
std::vector<std::string> gather_texts(const comm::Group& group, const std::string& own) {
  const at::Tensor length = at::empty({1}, at::kLong);
  const at::Tensor lengths = at::empty({group.size()}, at::kLong);
  *length.data_ptr<int64_t>() = static_cast<int64_t>(own.size());
  group.all_gather(length, lengths, {.unit = "trace"}).wait();
  const auto* begin = lengths.data_ptr<int64_t>();
  const int64_t longest = *std::max_element(begin, begin + group.size());
  const at::Tensor bytes = at::empty({longest}, at::kChar).zero_();
  const at::Tensor all = at::empty({longest * group.size()}, at::kChar);
  std::memcpy(bytes.data_ptr<int8_t>(), own.data(), own.size());
  group.all_gather(bytes, all, {.unit = "trace"}).wait();
  std::vector<std::string> texts;
  for (int rank = 0; rank < group.size(); ++rank) {
    texts.emplace_back(reinterpret_cast<const char*>(all.data_ptr<int8_t>()) + rank * longest, begin[rank]);
  }
  return texts;
}

}  // namespace

StepTrace::StepTrace(TraceOptions options, const comm::Group& gather_group, const comm::Group& reduce_group)
    : options_(std::move(options)), rank_(gather_group.rank()) {
  gather_group.observe(std::make_shared<LaneObserver>(recorder_, trace::Lane::kGather));
  reduce_group.observe(std::make_shared<LaneObserver>(recorder_, trace::Lane::kReduce));
}

StepTrace::~StepTrace() {
  if (written_ || rank_ != 0) return;
  log_warning("hydrofoil.trace: ", options_.path, " is not written: the engine has ended after step ", last_step_,
              ", and was to trace the steps ", options_.first_step, " to ",
              options_.first_step + options_.num_steps - 1);
}

void StepTrace::begin_step(const comm::Group& group, int64_t step) {
  if (step == options_.first_step) {
    group.barrier({.unit = "trace"});
    origin_ns_ = monotonic_ns();
    recorder_->start();
  }
  step_begin_ns_ = monotonic_ns();
}

void StepTrace::end_step(const comm::Group& group, int64_t step) {
  last_step_ = step;
  if (!recorder_->active()) return;
  recorder_->add({.lane = trace::Lane::kStep,
                  .what = "step",
                  .subject = std::to_string(step),
                  .begin_ns = step_begin_ns_,
                  .end_ns = monotonic_ns()});
  if (step >= options_.first_step + options_.num_steps - 1) write(group);
}

void StepTrace::write(const comm::Group& group) {
  const std::string own = trace::rank_lines(recorder_->stop(), group.rank(), origin_ns_);
  const std::vector<std::string> ranks = gather_texts(group, own);
  checkpoint::run_together(group, "hydrofoil.trace", [&] {
    if (group.rank() == 0) storage::write_file_atomically(options_.path, trace::chrome_trace(ranks));
  });
  written_ = true;
  if (group.rank() == 0) {
    log_info("trace of ", options_.num_steps, options_.num_steps == 1 ? " step" : " steps", " written to ",
             options_.path, ": open it in ui.perfetto.dev, or hydrofoil trace ", options_.path);
  }
}

}  // namespace hydrofoil::engine
