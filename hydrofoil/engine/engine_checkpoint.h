#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "hydrofoil/checkpoint/load.h"
#include "hydrofoil/engine/engine.h"

namespace hydrofoil::engine {

// A tensor that a checkpoint keeps beside the engine's own: a buffer of the model, a state of a client optimizer. Names
// are unique over all ranks.
struct ExtraTensor {
  std::string name;
  std::string kind;
  at::Tensor value;  // any shape, CPU or not
};

struct SaveRequest {
  std::string directory;
  std::string tag;
  bool save_latest = true;
  bool exclude_frozen = false;
  std::vector<ExtraTensor> extras;
  std::map<std::string, std::string> states;  // JSON texts: lr_scheduler, param_groups, ...
  std::string client_state = "{}";            // JSON object
};

// Writes <directory>/<tag>: parameters, masters, optimizer states, counters, loss scaler. Collective.
void save_engine(Engine& engine, const SaveRequest& request);

// Reads parameters and, if asked, masters, optimizer states, counters and loss scale into the engine; any world size
// and stage. Throws InvalidArgument for a parameter that the checkpoint lacks or has in another shape. Collective.
void load_engine(Engine& engine, checkpoint::LoadedCheckpoint& saved, bool strict, bool load_optimizer_states);

// One extra tensor of a checkpoint in its shape, or nullopt.
[[nodiscard]] std::optional<at::Tensor> read_extra(checkpoint::LoadedCheckpoint& saved, const std::string& name,
                                                   const std::string& kind);

}  // namespace hydrofoil::engine
