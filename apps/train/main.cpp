// The program `hydrofoil-train`, which `hydrofoil train` starts: the one command that needs libtorch.
#include <csignal>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include "apps/launcher/supervisor.h"
#include "apps/train/trainer.h"

namespace {

volatile std::sig_atomic_t stop_requested = 0;

void request_stop(int /*signal*/) { stop_requested = 1; }

// Says the exception that is being handled; returns the exit code.
int report_error() {
  try {
    throw;
  } catch (const hydrofoil::InvalidArgument& error) {
    std::cerr << error.what() << std::endl;
    return hydrofoil::launcher::kExitUsage;
  } catch (const hydrofoil::SystemError& error) {
    std::cerr << error.what() << std::endl;
    return hydrofoil::launcher::kExitSystem;
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return 1;
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    const auto parsed = hydrofoil::train::parse_train_arguments(arguments);
    if (parsed.help) {
      std::cout << *parsed.help << std::flush;
      return 0;
    }
    std::signal(SIGINT, request_stop);
    hydrofoil::train::Trainer trainer(parsed.options, stop_requested);
    try {
      return trainer.run();
    } catch (...) {
      // Without destructors: they would tell the other ranks, which would then fail too, and might end before this one.
      const int code = report_error();
      std::cout.flush();
      std::_Exit(code);
    }
  } catch (...) {
    return report_error();
  }
}
