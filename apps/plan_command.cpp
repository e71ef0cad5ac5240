#include "apps/plan_command.h"

#include <algorithm>
#include <ostream>
#include <vector>

#include "apps/launcher/command_line.h"
#include "apps/launcher/rank_environment.h"
#include "hydrofoil/base/error.h"
#include "hydrofoil/base/log.h"
#include "hydrofoil/engine/plan_settings.h"
#include "hydrofoil/models/model_config.h"
#include "hydrofoil/plan/advise.h"
#include "hydrofoil/plan/byte_size.h"
#include "hydrofoil/plan/page.h"
#include "hydrofoil/plan/report.h"
#include "hydrofoil/plan/roofs_json.h"
#include "hydrofoil/plan/scaling.h"
#include "hydrofoil/storage/file.h"
#include "hydrofoil/zero/whole_modules.h"

namespace hydrofoil {
namespace {

constexpr const char* kName = "hydrofoil plan";
constexpr int64_t kMaxWorldSize = 1 << 24;
constexpr const char* kFooter = R"(Examples:
  hydrofoil plan --config ds_config.json --model config.json --world-size 8
  hydrofoil plan --config ds_config.json --model llama-70b/ --world-size 4096 --nodes 512 --memory 80GB
  hydrofoil plan --config ds_config.json --model config.json --world-size 2 --sequence-length 256 --json
  hydrofoil plan --config ds_config.json --model config.json --world-size 8 --html plan.html
  hydrofoil plan --config ds_config.json --model llama-70b/ --scaling --link-latency 5us --link-bandwidth 25GB/s

Nothing is allocated: the plan of 4,096 ranks takes no more than that of one. Bytes of states, gathered units and gradient
buckets are exact; activations and time are estimates (docs/plan.md says how good).

Sizes: a number and KiB, MiB, GiB, TiB (powers of 1024) or KB, MB, GB, TB (of 1000).

Exit codes: 0 it fits, or --memory was not given; 1 it does not fit, with the cheapest setting that would; 2 wrong use, or
a wrong configuration or model; 126 a file cannot be read.
)";

int64_t model_positions(const models::ModelConfig& config) {
  if (const auto* llama = std::get_if<models::LlamaConfig>(&config.family)) return llama->max_position_embeddings;
  return std::get<models::Gpt2Config>(config.family).n_positions;
}

// Where ranks share memory, as comm::connect will find.
bool on_one_host(const PlanArguments& arguments, const engine::EngineOptions& options) {
  const auto backend = options.hydrofoil.backend;
  return arguments.cpu_device && arguments.num_nodes == 1 &&
         (backend == engine::CommBackend::kAuto || backend == engine::CommBackend::kShm);
}

plan::Roofs roofs_of(const PlanArguments& arguments) {
  plan::Roofs roofs;
  roofs.overlaps = !arguments.cpu_device;
  if (arguments.roofs) {
    constexpr int64_t kMaxBytes = 1 << 16;
    roofs = plan::parse_roofs(storage::read_file(*arguments.roofs, kMaxBytes), *arguments.roofs);
  }
  if (arguments.link_latency) roofs.host_latency_s = roofs.network_latency_s = *arguments.link_latency;
  if (arguments.link_bandwidth) roofs.host_bytes_per_s = roofs.network_bytes_per_s = *arguments.link_bandwidth;
  if (arguments.recursive_collectives) roofs.algorithm = plan::CollectiveAlgorithm::kRecursive;
  return roofs;
}

int positive(const char* flag, std::optional<int64_t> value) {
  HYDROFOIL_CHECK_ARG(value.value_or(1) >= 1 && value.value_or(1) <= kMaxWorldSize, kName, flag, ": got ", *value,
                      ", expected a value from 1 to ", kMaxWorldSize);
  return static_cast<int>(value.value_or(1));
}

}  // namespace

PlanArguments parse_plan_arguments(std::span<const std::string> arguments) {
  PlanArguments result;
  std::optional<std::string> config;
  std::optional<std::string> model;
  std::optional<std::string> memory;
  std::optional<std::string> device;
  std::optional<int64_t> world_size;
  std::optional<int64_t> nodes;
  std::optional<int64_t> max_ranks;
  std::optional<std::string> latency;
  std::optional<std::string> bandwidth;
  std::optional<std::string> collectives;
  launcher::CommandLine line(kName, "Show what a job keeps in memory, sends and takes a step, before it starts.");
  line.add_text("-c,--config", "FILE", &config, "ds_config.json, or its content as text or base64 (required)", "Job");
  line.add_text("-m,--model", "PATH", &model, "config.json of a Llama or GPT-2 model, or its directory (required)",
                "Job");
  line.add_integer("-w,--world-size", "N", &world_size, "Data-parallel ranks (default: 1)", "Job");
  line.add_integer("--nodes", "M", &nodes, "Hosts that the ranks are spread over (default: 1)", "Job");
  line.add_integer("--micro-batch", "B", &result.micro_batch_size,
                   "Samples a rank and micro step (default: the config's)", "Job");
  line.add_integer("--sequence-length", "S", &result.sequence_length,
                   "Tokens a sample (default: as many as the model has positions)", "Job");
  line.add_flag("--checkpointing", &result.checkpointing, "Blocks run their forward again in backward", "Job");
  line.add_text("--device", "DEVICE", &device, "cpu or cuda (default: cuda where a GPU is visible)", "Job");
  line.add_text("--memory", "SIZE", &memory, "Memory of a rank, e.g. 24GiB: what does not fit is refused", "Job");
  line.add_text("--roofs", "FILE", &result.roofs,
                "Speeds of the machine as JSON, for the predicted time (docs/plan.md)", "Job");
  line.add_flag("--json", &result.json, "Print JSON, with the timeline of one step, instead of a table", "Output");
  line.add_text("--html", "FILE", &result.html,
                "Write a page too: memory and lanes of one step, and the curve of --scaling", "Output");
  line.add_flag("--scaling", &result.scaling,
                "Print time, efficiency and bytes of ZeRO 1 to 3 at 2, 4, ... ranks instead of the plan", "Scaling");
  line.add_integer("--max-ranks", "N", &max_ranks, "Ranks at which --scaling ends (default: 4096)", "Scaling");
  line.add_text("--link-latency", "TIME", &latency,
                "Of a message between any two ranks, e.g. 5us (default: the roofs')", "Links");
  line.add_text("--link-bandwidth", "RATE", &bandwidth, "Of a rank's link, e.g. 25GB/s (default: the roofs')", "Links");
  line.add_text("--collectives", "KIND", &collectives,
                "ring (N - 1 messages each; default) or recursive (log2 N messages)", "Links");
  line.set_usage("hydrofoil plan --config FILE --model PATH [OPTIONS]");
  line.set_footer(kFooter);
  const std::vector<std::string> help = {"--help"};
  result.help = line.parse(arguments.empty() ? std::span<const std::string>(help) : arguments);
  if (result.help) return result;
  HYDROFOIL_CHECK_ARG(config, kName, "--config FILE is missing (see hydrofoil plan --help)");
  HYDROFOIL_CHECK_ARG(model, kName, "--model PATH is missing (see hydrofoil plan --help)");
  HYDROFOIL_CHECK_ARG(!device || *device == "cpu" || *device == "cuda", kName, "--device: got \"", *device,
                      "\", expected cpu or cuda");
  for (const auto& [flag, value] :
       {std::pair{"--micro-batch", result.micro_batch_size}, std::pair{"--sequence-length", result.sequence_length}}) {
    constexpr int64_t kMost = 1 << 24;
    HYDROFOIL_CHECK_ARG(value.value_or(1) >= 1 && value.value_or(1) <= kMost, kName, flag, ": got ", *value,
                        ", expected a value from 1 to ", kMost);
  }
  result.config = *config;
  result.model = *model;
  result.world_size = positive("--world-size", world_size);
  result.num_nodes = positive("--nodes", nodes);
  if (memory) result.memory_bytes = plan::parse_byte_size("--memory", *memory);
  HYDROFOIL_CHECK_ARG(!max_ranks || result.scaling, kName, "--max-ranks is for --scaling, which is missing");
  if (max_ranks) result.max_ranks = positive("--max-ranks", max_ranks);
  if (latency) result.link_latency = plan::parse_duration("--link-latency", *latency);
  if (bandwidth) result.link_bandwidth = plan::parse_byte_rate("--link-bandwidth", *bandwidth);
  HYDROFOIL_CHECK_ARG(!collectives || *collectives == "ring" || *collectives == "recursive", kName,
                      "--collectives: got \"", *collectives, "\", expected ring or recursive");
  result.recursive_collectives = collectives == "recursive";
  result.cpu_device = device ? *device == "cpu" : launcher::count_gpus() == 0;
  return result;
}

int plan_command(const PlanArguments& arguments, std::ostream& out, std::ostream& errors) {
  const engine::ResolveContext context{.world_size = arguments.world_size, .cpu_device = arguments.cpu_device};
  const engine::EngineOptions options = engine::resolve_engine_options(arguments.config, context).options;
  const models::ModelConfig model = models::load_model_config(arguments.model);
  plan::Question question;
  question.settings = engine::plan_settings(options, context);
  question.settings.num_nodes = arguments.num_nodes;
  if (on_one_host(arguments, options)) engine::assume_one_host(options, question.settings);
  question.batch.micro_batch_size = arguments.micro_batch_size.value_or(options.train_micro_batch_size_per_gpu);
  question.settings.micro_batch_size = question.batch.micro_batch_size;
  question.batch.sequence_length = arguments.sequence_length.value_or(model_positions(model));
  question.batch.checkpointing = arguments.checkpointing;
  question.roofs = roofs_of(arguments);
  std::string unmatched;
  question.spec = [&](const plan::BatchShape& batch) {
    const auto dtype = question.settings.model_dtype.value_or(c10::ScalarType::Float);
    plan::ModelSpec spec = plan::transformer_spec(model, batch, dtype);
    unmatched = zero::mark_whole_modules(spec.modules, options.hydrofoil.unit_names, options.zero.leaf_module);
    return spec;
  };
  const plan::ModelSpec spec = question.spec(question.batch);
  if (!unmatched.empty()) log_warning(unmatched);
  const plan::Plan plan = arguments.memory_bytes && !options.hydrofoil.keep_gathered_bytes
                              ? plan::make_plan_within(spec, question.settings, question.roofs, *arguments.memory_bytes)
                              : plan::make_plan(spec, question.settings, question.roofs);
  std::optional<plan::Scaling> scaling;
  if (arguments.scaling) {
    scaling = plan::plan_scaling(spec, question.settings, question.roofs, arguments.max_ranks,
                                 arguments.world_size / arguments.num_nodes);
    out << (arguments.json ? plan::to_json(*scaling) : plan::to_text(*scaling)) << std::flush;
  } else {
    out << (arguments.json ? plan::to_json(plan, /*with_timeline=*/true) : plan::to_text(plan)) << std::flush;
  }
  if (arguments.html) plan::write_page(*arguments.html, plan::to_html(plan, arguments.memory_bytes, scaling));
  if (!options.optimizer.native) {
    errors
        << "note: the config names no optimizer of the engine's own: two states an element are planned, as of AdamW\n";
  }
  if (!arguments.memory_bytes || plan.peak.bytes <= *arguments.memory_bytes) return 0;
  question.memory_bytes = *arguments.memory_bytes;
  errors << "[" << kName << "] " << plan::explain_misfit(question, plan) << std::endl;
  return kExitDoesNotFit;
}

}  // namespace hydrofoil
