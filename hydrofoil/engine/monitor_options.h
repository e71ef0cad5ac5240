#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "hydrofoil/config/field.h"

namespace hydrofoil::engine {

// A monitor that writes files into <output_path>/<job_name>: `tensorboard`, `csv_monitor`, `hydrofoil.json_monitor`.
struct FileMonitorOptions {
  bool enabled = false;
  std::string output_path;  // "": the working directory
  std::string job_name = "DeepSpeedJobName";
};

// The section `wandb`.
struct WandbOptions {
  bool enabled = false;
  std::optional<std::string> group;
  std::optional<std::string> team;
  std::string project = "deepspeed";
};

// The section `comet`: what comet_ml.start takes, which reads its own settings for what is none.
struct CometOptions {
  bool enabled = false;
  int64_t samples_log_interval = 100;  // samples between two values of one name
  std::optional<std::string> project;
  std::optional<std::string> workspace;
  std::optional<std::string> api_key;
  std::optional<std::string> experiment_name;
  std::optional<std::string> experiment_key;
  std::optional<bool> online;
  std::optional<std::string> mode;
};

// The section `timers.throughput`.
struct ThroughputOptions {
  bool enabled = true;
};
struct TimerOptions {
  ThroughputOptions throughput;
};

[[nodiscard]] config::Section file_monitor_section(std::string doc);
[[nodiscard]] config::Section wandb_section();
[[nodiscard]] config::Section comet_section();
[[nodiscard]] config::Section timers_section();

}  // namespace hydrofoil::engine
