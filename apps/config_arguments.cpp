#include <algorithm>
#include <vector>

#include "apps/config_command.h"
#include "apps/launcher/command_line.h"
#include "apps/launcher/rank_environment.h"
#include "hydrofoil/base/error.h"
#include "hydrofoil/base/nearest.h"

namespace hydrofoil {
namespace {

constexpr const char* kName = "hydrofoil config explain";
constexpr const char* kFooter = R"(Examples:
  hydrofoil config explain ds_config.json
  hydrofoil config explain ds_config.json --world-size 8 --device cuda

Prints one line per setting: its value, and whether it was given, is a default, or was derived from what.

Exit codes: 0 the configuration is valid; 2 wrong use or a configuration that is not valid, with the reason; 126 the file
cannot be read.
)";

}  // namespace

ConfigArguments parse_config_arguments(std::span<const std::string> arguments) {
  const std::vector<std::string> subcommands = {"explain"};
  const std::string subcommand = arguments.empty() ? "--help" : arguments[0];
  const bool is_flag = subcommand.starts_with("-");
  HYDROFOIL_CHECK_ARG(is_flag || subcommand == "explain", "hydrofoil config", "unknown command ", subcommand,
                      "; the nearest valid one is ", nearest_name(subcommand, subcommands));

  std::string file;
  std::optional<int64_t> world_size;
  std::optional<std::string> device;
  launcher::CommandLine line(kName, "Show every setting of a ds_config.json, resolved, and why it has its value.");
  line.add_positional("FILE", &file, "ds_config.json, or its content as text or base64");
  line.add_integer("-w,--world-size", "N", &world_size, "Data-parallel ranks (default: 1)", "Options");
  line.add_text("--device", "DEVICE", &device, "cpu or cuda (default: cuda where a GPU is visible)", "Options");
  line.set_usage("hydrofoil config explain FILE [OPTIONS]");
  line.set_footer(kFooter);

  ConfigArguments result;
  result.help =
      line.parse(arguments.empty() ? std::vector<std::string>{"--help"}
                                   : std::vector<std::string>(arguments.begin() + (is_flag ? 0 : 1), arguments.end()));
  if (result.help) return result;
  constexpr int64_t kMaxWorldSize = 1 << 24;
  HYDROFOIL_CHECK_ARG(world_size.value_or(1) >= 1 && world_size.value_or(1) <= kMaxWorldSize, kName,
                      "--world-size: got ", *world_size, ", expected a value from 1 to ", kMaxWorldSize);
  HYDROFOIL_CHECK_ARG(!device || *device == "cpu" || *device == "cuda", kName, "--device: got \"", *device,
                      "\", expected cpu or cuda");
  result.text_or_path = file;
  result.world_size = static_cast<int>(world_size.value_or(1));
  result.cpu_device = device ? *device == "cpu" : launcher::count_gpus() == 0;
  return result;
}

}  // namespace hydrofoil
