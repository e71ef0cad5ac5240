#include "hydrofoil/engine/monitor_options.h"

#include <utility>

namespace hydrofoil::engine {

using config::field;
using config::Section;

// Lax: DeepSpeed's own sections coerce strings.
Section file_monitor_section(std::string doc) {
  Section section;
  section.doc = std::move(doc);
  section.lax = true;
  section.fields = {
      field("enabled", &FileMonitorOptions::enabled, "write the events of training (docs/monitoring.md)"),
      field("output_path", &FileMonitorOptions::output_path, "folder of the jobs; empty: the working directory"),
      field("job_name", &FileMonitorOptions::job_name, "folder of this job in it"),
  };
  return section;
}

Section wandb_section() {
  Section section;
  section.doc = "Weights & Biases (Python package wandb)";
  section.lax = true;
  section.fields = {
      field("enabled", &WandbOptions::enabled, "write the events of training (docs/monitoring.md)"),
      field("group", &WandbOptions::group, "group of the run"),
      field("team", &WandbOptions::team, "W&B entity of the run"),
      field("project", &WandbOptions::project, "project of the run"),
  };
  return section;
}

Section comet_section() {
  Section section;
  section.doc =
      "Comet (Python package comet_ml). `api_key`, a string, is the key of the account, else COMET_API_KEY or Comet's "
      "own "
      "settings are read; no listing shows it";
  section.lax = true;
  config::Field key = field("api_key", &CometOptions::api_key, "");
  key.unlisted = true;  // a secret: no row in `explain`
  section.fields = {
      field("enabled", &CometOptions::enabled, "write the events of training (docs/monitoring.md)"),
      field("samples_log_interval", &CometOptions::samples_log_interval, "samples between two values of one name")
          .at_least(1),
      field("project", &CometOptions::project, "project of the experiment"),
      field("workspace", &CometOptions::workspace, "workspace of the project"),
      key,
      field("experiment_name", &CometOptions::experiment_name, "name of the experiment"),
      field("experiment_key", &CometOptions::experiment_key, "key of an experiment to go on with"),
      field("online", &CometOptions::online, "false: written to files, without network"),
      field("mode", &CometOptions::mode, "get, create or get_or_create the experiment"),
  };
  section.fields.back().choices = {"get", "create", "get_or_create"};
  return section;
}

Section timers_section() {
  Section throughput;
  throughput.doc = "Throughput timer";
  throughput.lax = true;
  throughput.fields = {
      field("enabled", &ThroughputOptions::enabled, "samples a second in the progress lines and monitors"),
      config::accepted("synchronized", true, "only wall_clock_breakdown waits for an accelerator"),
  };
  Section section;
  section.doc = "Timers";
  section.fields = {config::nested("throughput", &TimerOptions::throughput, std::move(throughput))};
  return section;
}

}  // namespace hydrofoil::engine
