#pragma once

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <span>
#include <string>

namespace hydrofoil {

// What `hydrofoil plan` was asked for.
struct PlanArguments {
  std::optional<std::string> help;  // set: print it, plan nothing
  std::string config;               // file, JSON text or base64
  std::string model;                // config.json or its directory
  int world_size = 1;
  int num_nodes = 1;
  std::optional<int64_t> memory_bytes;      // of a rank; none: nothing is refused
  std::optional<int64_t> micro_batch_size;  // none: the config's
  std::optional<int64_t> sequence_length;   // none: the model's positions
  std::optional<std::string> roofs;         // JSON file of the machine's speeds; none: plan::Roofs
  bool checkpointing = false;
  bool cpu_device = true;
  bool json = false;
  std::optional<std::string> html;  // file
  bool scaling = false;
  int max_ranks = 4096;                // of --scaling
  std::optional<double> link_latency;  // seconds; none: of the roofs
  std::optional<double> link_bandwidth;
  bool recursive_collectives = false;  // instead of rings
};

inline constexpr int kExitDoesNotFit = 1;

// Parses what follows `hydrofoil plan`. Throws InvalidArgument at wrong use.
[[nodiscard]] PlanArguments parse_plan_arguments(std::span<const std::string> arguments);

// Writes the plan, or the scaling curve, to `out` and why it does not fit to `errors`. Returns 0, or kExitDoesNotFit.
// Throws InvalidArgument where config or model are wrong.
[[nodiscard]] int plan_command(const PlanArguments& arguments, std::ostream& out, std::ostream& errors);

}  // namespace hydrofoil
