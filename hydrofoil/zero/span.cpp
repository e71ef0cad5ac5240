#include "hydrofoil/zero/span.h"

#include <ATen/record_function.h>

#include <string_view>

#include "hydrofoil/base/clock.h"

namespace hydrofoil::zero {

struct Span::Marks {
  at::RecordFunction range{at::RecordScope::USER_SCOPE};
  trace::Recorder* recorder = nullptr;  // null: no trace is taken
  trace::Event event;
};

Span::Span(trace::Recorder* recorder, trace::Lane lane, const char* what, const std::string& subject) {
  const bool traced = recorder != nullptr && recorder->active();
  const bool profiled = at::hasCallbacks();
  if (!traced && !profiled) return;
  marks_ = std::make_unique<Marks>();
  if (marks_->range.isActive()) {
    const std::string name = std::string("hydrofoil ") + what + (subject.empty() ? "" : " ") + subject;
    marks_->range.before(std::string_view(name));
  }
  if (!traced) return;
  marks_->recorder = recorder;
  marks_->event = {.lane = lane, .what = what, .subject = subject, .begin_ns = monotonic_ns()};
}

Span::~Span() {
  if (marks_ == nullptr || marks_->recorder == nullptr) return;
  marks_->event.end_ns = monotonic_ns();
  marks_->recorder->add(std::move(marks_->event));
}

}  // namespace hydrofoil::zero
