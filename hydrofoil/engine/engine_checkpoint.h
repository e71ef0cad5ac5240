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
  std::string client_optimizer;               // class of a client optimizer, an identifier; "" where there is none
};

// Writes <directory>/<tag>: parameters, masters, optimizer states, counters, loss scaler. Collective.
void save_engine(Engine& engine, const SaveRequest& request);

// Opens checkpoint `tag`, or the latest one; nullopt where there is no tag and no file 'latest'. An error of one rank
// is an error of all. Collective.
[[nodiscard]] std::optional<checkpoint::LoadedCheckpoint> open_checkpoint(Engine& engine, const std::string& directory,
                                                                          const std::optional<std::string>& tag);

// Makes an error that one rank met beside the engine (nullopt: none) an InvalidArgument of all. Collective.
void agree(Engine& engine, const std::optional<std::string>& own_error, const std::string& what);

// Reads parameters and, if asked, masters, optimizer states, counters and loss scale into the engine; any world size
// and stage. Throws InvalidArgument on all ranks for a parameter that the checkpoint lacks or has in another shape (no
// value has changed then), for states of another optimizer, or for a damaged file (values are a mixture then: load
// another). `strict`: a parameter that only one side has is an error. `client_optimizer`: as in SaveRequest.
// Collective.
void load_engine(Engine& engine, checkpoint::LoadedCheckpoint& saved, bool strict, bool load_optimizer_states,
                 const std::string& client_optimizer = "");

// Writes one safetensors file of the whole model, in the model's dtype: parameters (tied ones once, under their first
// names) and `buffers`; one unit is gathered at a time, rank 0 writes. An error of rank 0 is one of all. Collective.
void save_model(Engine& engine, const std::string& path, const std::vector<ExtraTensor>& buffers, bool exclude_frozen);

// One extra tensor of a checkpoint in its shape, or nullopt.
[[nodiscard]] std::optional<at::Tensor> read_extra(checkpoint::LoadedCheckpoint& saved, const std::string& name,
                                                   const std::string& kind);

}  // namespace hydrofoil::engine
