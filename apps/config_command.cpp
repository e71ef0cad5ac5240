#include "apps/config_command.h"

#include <CLI/CLI.hpp>

#include <iostream>

#include "hydrofoil/base/error.h"
#include "hydrofoil/base/nearest.h"
#include "hydrofoil/engine/engine_options.h"

namespace hydrofoil {
namespace {

constexpr const char* kExample =
    "Example:\n  hydrofoil config explain ds_config.json --world-size 8\n\nExit codes: 0 the configuration is valid, 1 it is not, 2 wrong use";

// The flag that an unknown one was meant to be.
std::string with_suggestion(const std::string& message, const std::span<const std::string> arguments) {
  for (const auto& argument : arguments) {
    if (argument.rfind("--", 0) != 0 || argument.rfind("--world-size", 0) == 0 || argument == "--help") continue;
    return message + "; did you mean " + nearest_name(argument, {"--world-size", "--help"}) + "?";
  }
  return message;
}

}  // namespace

int config_command(std::span<const std::string> arguments) {
  CLI::App app{"Looks into a ds_config.json", "hydrofoil config"};
  app.footer(kExample);
  app.require_subcommand(1);
  std::string file;
  int world_size = 1;
  bool cuda = false;
  auto* explain = app.add_subcommand("explain", "Prints every resolved value of a configuration and why it has it");
  explain->footer(kExample);
  explain->add_option("FILE", file, "ds_config.json, or base64 of its text")->required();
  explain->add_option("--world-size", world_size, "Number of ranks")->check(CLI::PositiveNumber);
  explain->add_flag("--cuda", cuda, "The model lives on CUDA devices");
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
  try {
    app.parse(std::move(reversed));
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    std::cerr << "hydrofoil config: " << with_suggestion(error.what(), arguments) << "\n\n" << kExample << "\n";
    return 2;
  }
  std::cout << engine::explain_config(file, {world_size, !cuda});
  return 0;
}

}  // namespace hydrofoil
