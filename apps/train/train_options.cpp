#include "apps/train/train_options.h"

#include <limits>

#include "apps/launcher/command_line.h"
#include "hydrofoil/base/error.h"

namespace hydrofoil::train {
namespace {

constexpr const char* kFooter = R"(
Output, in the run folder: loss.csv and held_out.csv, loss.svg, checkpoint/. Ctrl-C ends the run after the running step,
with a checkpoint.

Examples:
  hydrofoil run --no-python --nproc 2 hydrofoil train --config ds_config.json --model config.json --data text/
  hydrofoil run --no-python --nproc 2 hydrofoil train --config ds_config.json --model SmolLM2-135M \
      --init SmolLM2-135M --data tokens.npy --steps 20
  hydrofoil train --config ds_config.json --model config.json --data text/ --resume runs/2026-11-26_09-00-00

Exit codes: 0 done; 1 training cannot go on (the loss is not a number, a rank was lost); 2 wrong use, or a wrong
configuration, model or data; 126 the system refused something; 130 interrupted by Ctrl-C.
)";

int64_t in_range(const char* flag, const std::optional<int64_t>& value, int64_t minimum, int64_t default_value) {
  if (!value) return default_value;
  HYDROFOIL_CHECK_ARG(*value >= minimum, "hydrofoil train", flag, ": got ", *value, ", expected at least ", minimum);
  return *value;
}

}  // namespace

ParsedTrain parse_train_arguments(std::span<const std::string> arguments) {
  ParsedTrain parsed;
  TrainOptions& options = parsed.options;
  std::optional<std::string> config, model;
  std::optional<int64_t> seed, eval_interval, eval_windows, save_interval, print_interval;
  launcher::CommandLine line("hydrofoil train",
                             "Trains a Llama or GPT-2 model under ZeRO, without Python; start several ranks with "
                             "`hydrofoil run --no-python`.");
  line.set_usage("hydrofoil train --config DS_CONFIG --model CONFIG --data FILE... [OPTIONS]");
  const std::string what = "What to train";
  line.add_text("--config", "DS_CONFIG", &config, "ds_config.json of the engine (required)", what);
  line.add_text("--model", "CONFIG", &model, "Hugging Face config.json, or the folder that holds it (required)", what);
  line.add_list("--data", "FILE", &options.data, "text files, .npy files of token ids, or folders of them (required)",
                what);
  line.add_text("--init", "WEIGHTS", &options.init,
                "safetensors file, its index, or a folder, to start from (default: new weights by --seed)", what);
  line.add_text("--resume", "RUN", &options.resume, "folder of an earlier run to go on with", what);
  const std::string how = "How";
  line.add_integer("--steps", "N", &options.steps, "optimizer steps of the whole run (default: one epoch)", how);
  line.add_integer("--context", "N", &options.context,
                   "tokens of a window (default: what the model sees, at most 1024)", how);
  line.add_integer("--seed", "N", &seed, "of new weights and of the order of the data (default 1)", how);
  const std::string output = "Output";
  line.add_text("--out", "RUN", &options.out, "folder for numbers, curve and checkpoint (default: runs/<time>)",
                output);
  line.add_integer("--eval-interval", "N", &eval_interval, "steps between held-out losses (default 100)", output);
  line.add_integer("--eval-windows", "N", &eval_windows, "held-out windows that are evaluated (default 256)", output);
  line.add_integer("--save-interval", "N", &save_interval, "steps between checkpoints (default: only at the end)",
                   output);
  line.add_integer("--print-interval", "N", &print_interval, "steps a line without a terminal (default 10)", output);
  line.set_footer(kFooter);
  parsed.help = line.parse(arguments);
  if (parsed.help) return parsed;

  HYDROFOIL_CHECK_ARG(config.has_value(), "hydrofoil train", "--config is required: a ds_config.json");
  HYDROFOIL_CHECK_ARG(model.has_value(), "hydrofoil train", "--model is required: a Hugging Face config.json");
  HYDROFOIL_CHECK_ARG(!options.data.empty(), "hydrofoil train", "--data is required: text or .npy files, or folders");
  HYDROFOIL_CHECK_ARG(!options.init || !options.resume, "hydrofoil train",
                      "--init and --resume: got both; the checkpoint of the run has its weights, give one of them");
  options.config = *config;
  options.model = *model;
  if (options.steps) in_range("--steps", options.steps, 1, 0);
  if (options.context) in_range("--context", options.context, 1, 0);
  options.seed = in_range("--seed", seed, 0, options.seed);
  options.eval_interval = in_range("--eval-interval", eval_interval, 1, options.eval_interval);
  options.eval_windows = in_range("--eval-windows", eval_windows, 1, options.eval_windows);
  options.save_interval = in_range("--save-interval", save_interval, 0, options.save_interval);
  options.print_interval = in_range("--print-interval", print_interval, 1, options.print_interval);
  return parsed;
}

}  // namespace hydrofoil::train
