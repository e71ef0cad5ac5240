#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "hydrofoil/comm/job.h"
#include "hydrofoil/engine/engine.h"
#include "hydrofoil/zero/model_tree.h"

namespace hydrofoil::engine {

// Changes one parameter group's hyperparameters from what the config says.
using GroupChange = std::function<void(optim::Hyperparameters&)>;

struct InitializeOptions {
  // More than one parameter group, e.g. one without weight decay: what each changes, and which one a parameter is in
  // (an index into `groups`). Empty: one group with the config's values.
  std::vector<GroupChange> groups;
  std::function<int(const std::string& name, const at::Tensor& parameter)> group_of;
};

// The engine of a C++ program: what hydrofoil.initialize is in Python, driven by the same config.
//
// `model`: a tree of CPU parameters, which the engine takes over; calls of its modules must go through
// model.boundaries. `config`: path of a ds_config.json, or its text. Every rank of `job` calls it with the same model
// and config; `job` outlives the engine. Floating-point buffers take the config's model dtype.
//
// The optimizer and the schedule are those of the config; without an optimizer the engine can only run forward. Throws
// InvalidArgument for a config or model that cannot be, a client-only optimizer or schedule (a torch.optim class, which
// needs Python), and CommError where ranks differ.
[[nodiscard]] std::unique_ptr<Engine> initialize(zero::ModelTree& model, std::string_view config, comm::Job& job,
                                                 const InitializeOptions& options = {});

// The same with a config that was read before, by resolve_engine_options().
[[nodiscard]] std::unique_ptr<Engine> initialize(zero::ModelTree& model, const EngineOptions& config, comm::Job& job,
                                                 const InitializeOptions& options = {});

// The same over two channels that the caller has connected, such as those of threads (comm/local).
[[nodiscard]] std::unique_ptr<Engine> initialize(zero::ModelTree& model, const EngineOptions& config,
                                                 std::vector<comm::Group> channels,
                                                 const InitializeOptions& options = {});

}  // namespace hydrofoil::engine
