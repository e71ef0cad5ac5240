#pragma once

#include <string>

#include "hydrofoil/comm/backend.h"

namespace hydrofoil::comm {

// A group of one: copies within the rank, on the calling thread (so in the caller's stream order on other devices).
class SelfBackend : public Backend {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::string name() const override { return "local"; }
  bool supports(c10::DeviceType /*device*/) const override { return true; }
  bool runs_inline() const override { return true; }
  void run(const Operation& operation, const CallControl& control) override;
  void leave(const std::string& /*reason*/) override {}
};

}  // namespace hydrofoil::comm
