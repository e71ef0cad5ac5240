#pragma once

#include <memory>
#include <string>

#include "hydrofoil/trace/recorder.h"

namespace hydrofoil::zero {

// Marks what the calling thread does from here to the end of the block: a range "hydrofoil <what> <subject>" of
// torch.profiler where one is on, and an event of `recorder` (may be null) where that is active. Else costs two loads.
class Span {
 public:
  Span(trace::Recorder* recorder, trace::Lane lane, const char* what, const std::string& subject);
  ~Span();
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;

 private:
  struct Marks;
  std::unique_ptr<Marks> marks_;  // null: nobody listens
};

}  // namespace hydrofoil::zero
