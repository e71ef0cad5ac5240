#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "hydrofoil/engine/engine.h"

namespace hydrofoil::engine {

// What an engine is made of besides its options.
struct EngineParts {
  std::vector<zero::RuntimeParameter> parameters;  // each once
  std::vector<zero::ModuleNode> modules;           // the model's tree, parents before children
  comm::Group gather_group;                        // two channels over the same ranks
  comm::Group reduce_group;
  std::optional<optim::OptimizerKind> native_optimizer;  // nullopt: a client optimizer, or none
  std::string optimizer_text;                            // the optimizer and its groups; the same on every rank
  bool training = true;                                  // false: no optimizer, only forward
  zero::ErrorTranslator translate_hook_error;
  std::shared_ptr<zero::Boundaries> boundaries;  // of a C++ model; else null
  std::vector<zero::NamedTensor> buffers;        // that checkpoints keep; floating-point ones take the model dtype
};

// Takes over the parameters and makes the engine. Collective; throws CommError on every rank where options, optimizer
// or parameters (names, shapes, dtypes, groups) differ between ranks, naming the first difference.
[[nodiscard]] std::unique_ptr<Engine> build_engine(const EngineOptions& options, EngineParts parts);

// The log that a config's `comms_logger` asks for; null unless enabled.
[[nodiscard]] std::shared_ptr<comm::CommLog> make_comm_log(const CommsLoggerOptions& options);

}  // namespace hydrofoil::engine
