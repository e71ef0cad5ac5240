#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace hydrofoil::train {

// What `hydrofoil train` was asked for.
struct TrainOptions {
  std::string config;                 // ds_config.json
  std::string model;                  // config.json of a Hugging Face model, or its directory
  std::vector<std::string> data;      // files or folders
  std::optional<int64_t> steps;       // none: one epoch
  std::optional<std::string> init;    // weights to start from; none: initialised by `seed`
  std::optional<std::string> resume;  // run folder to go on with
  std::optional<std::string> out;     // run folder; none: that of `resume`, or runs/<time>
  std::optional<int64_t> context;     // tokens of a window; none: what the model sees, at most kDefaultContext
  int64_t seed = 1;
  int64_t eval_interval = 100;
  int64_t eval_windows = 256;
  int64_t save_interval = 0;  // 0: only at the end
  int64_t print_interval = 10;
};

inline constexpr int64_t kDefaultContext = 1024;

struct ParsedTrain {
  TrainOptions options;
  std::optional<std::string> help;  // set where --help was asked for
};

// Throws InvalidArgument that names the flag, with the nearest valid one where it is unknown.
[[nodiscard]] ParsedTrain parse_train_arguments(std::span<const std::string> arguments);

}  // namespace hydrofoil::train
