#include "hydrofoil/engine/initialize.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <string>
#include <utility>

#include "hydrofoil/base/error.h"
#include "hydrofoil/base/log.h"
#include "hydrofoil/engine/build_engine.h"
#include "hydrofoil/engine/groups_json.h"
#include "hydrofoil/optim/schedule_options.h"
#include "hydrofoil/zero/whole_modules.h"

namespace hydrofoil::engine {
namespace {

constexpr const char* kFunction = "initialize";

optim::Hyperparameters hyperparameters(const optim::OptimizerParams& params) {
  optim::Hyperparameters result;
  result.lr = params.lr;
  HYDROFOIL_CHECK_ARG(params.betas.size() == 2, kFunction, "optimizer.params.betas: got ", params.betas.size(),
                      " values, expected 2");
  result.beta1 = params.betas[0];
  result.beta2 = params.betas[1];
  result.eps = params.eps;
  result.weight_decay = params.weight_decay;
  result.momentum = params.momentum;
  result.dampening = params.dampening;
  result.nesterov = params.nesterov;
  result.bias_correction = params.bias_correction;
  return result;
}

void assign_groups(zero::ModelTree& model, const InitializeOptions& options) {
  const int num_groups = static_cast<int>(options.groups.size());
  for (auto& info : model.parameters) {
    info.optimizer_group = options.group_of ? options.group_of(info.name, info.parameter) : 0;
    HYDROFOIL_CHECK_ARG(info.optimizer_group >= 0 && info.optimizer_group < std::max(num_groups, 1), kFunction,
                        "group_of(", info.name, "): got ", info.optimizer_group, ", expected 0 to ",
                        std::max(num_groups, 1) - 1);
  }
}

std::optional<optim::OptimizerKind> optimizer_kind(const EngineOptions& options) {
  const auto& optimizer = options.optimizer;
  if (optimizer.type.empty()) return std::nullopt;
  HYDROFOIL_CHECK_ARG(optimizer.native, kFunction, "optimizer.type: got ", optimizer.type,
                      ", a class of torch.optim, which needs Python; expected Adam, AdamW, SGD, Adagrad or Lion");
  return optim::parse_optimizer_kind(optimizer.type, optimizer.params.adam_w_mode);
}

void check_supported(const EngineOptions& options) {
  HYDROFOIL_CHECK_ARG(!options.torch_autocast.enabled, kFunction,
                      "torch_autocast.enabled: autocast is a feature of Python programs; in C++ take bf16 or fp16");
  HYDROFOIL_CHECK_ARG(
      !options.has_monitors(), kFunction,
      "tensorboard, csv_monitor, wandb, comet, hydrofoil.json_monitor: got one that is enabled; monitors "
      "are a feature of Python programs, expected none in C++");
  const auto& scheduler = options.scheduler;
  HYDROFOIL_CHECK_ARG(scheduler.type.empty() || scheduler.native, kFunction, "scheduler.type: got ", scheduler.type,
                      ", a class of torch.optim.lr_scheduler, which needs Python; expected WarmupLR, WarmupDecayLR, "
                      "WarmupCosineLR, OneCycle or LRRangeTest");
  HYDROFOIL_CHECK_ARG(scheduler.type.empty() || !options.optimizer.type.empty(), kFunction,
                      "scheduler: a schedule needs the section 'optimizer'");
}

}  // namespace

std::unique_ptr<Engine> initialize(zero::ModelTree& model, const EngineOptions& config,
                                   std::vector<comm::Group> channels, const InitializeOptions& options) {
  HYDROFOIL_CHECK_ARG(channels.size() == 2, kFunction, "channels: got ", channels.size(), ", expected 2");
  if (config.log_level) set_log_level(*config.log_level);
  check_supported(config);
  HYDROFOIL_CHECK_ARG(!model.boundaries->attached(), kFunction,
                      "this model belongs to an engine already; destroy that one before");
  const auto kind = optimizer_kind(config);
  std::vector<optim::Hyperparameters> groups;
  if (kind) groups.assign(std::max<size_t>(options.groups.size(), 1), hyperparameters(config.optimizer.params));
  for (size_t g = 0; g < groups.size() && g < options.groups.size(); ++g) options.groups[g](groups[g]);
  assign_groups(model, options);

  EngineParts parts;
  parts.parameters = model.parameters;
  parts.modules = model.modules;
  const std::string unmatched =
      zero::mark_whole_modules(parts.modules, config.hydrofoil.unit_names, config.zero.leaf_module);
  if (!unmatched.empty()) log_warning(unmatched);
  parts.gather_group = std::move(channels[0]);
  parts.reduce_group = std::move(channels[1]);
  parts.native_optimizer = kind;
  parts.training = kind.has_value();
  parts.boundaries = model.boundaries;
  parts.buffers = model.buffers;
  if (kind) parts.optimizer_text = detail::concat(optim::optimizer_name(*kind), " ", groups_to_json(*kind, groups));
  auto engine = build_engine(config, std::move(parts));
  engine->set_groups(std::move(groups));
  if (!config.scheduler.type.empty()) engine->set_schedule(optim::schedule_options(config.scheduler));
  return engine;
}

std::unique_ptr<Engine> initialize(zero::ModelTree& model, const EngineOptions& config, comm::Job& job,
                                   const InitializeOptions& options) {
  const auto timeout = std::chrono::duration<double>(config.hydrofoil.collective_timeout_s);
  comm::JobGroupOptions channels;
  channels.backend = comm_backend_name(config.hydrofoil.backend);
  if (!model.parameters.empty()) channels.device = model.parameters[0].parameter.device().type();
  channels.group.timeout = std::chrono::duration_cast<std::chrono::milliseconds>(timeout);
  return initialize(model, config, job.connect(channels), options);
}

std::unique_ptr<Engine> initialize(zero::ModelTree& model, std::string_view config, comm::Job& job,
                                   const InitializeOptions& options) {
  return initialize(model, resolve_engine_options(config, {job.world_size(), true}).options, job, options);
}

}  // namespace hydrofoil::engine
