// The program `hydrofoil-train`, which `hydrofoil train` starts: the one command that needs libtorch.
#include <csignal>
#include <iostream>
#include <string>
#include <vector>

#include "apps/launcher/supervisor.h"
#include "apps/train/trainer.h"

namespace {

volatile std::sig_atomic_t stop_requested = 0;

void request_stop(int /*signal*/) { stop_requested = 1; }

}  // namespace

int main(int argc, char** argv) {
  using hydrofoil::launcher::kExitSystem;
  using hydrofoil::launcher::kExitUsage;
  try {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    const auto parsed = hydrofoil::train::parse_train_arguments(arguments);
    if (parsed.help) {
      std::cout << *parsed.help << std::flush;
      return 0;
    }
    std::signal(SIGINT, request_stop);
    return hydrofoil::train::Trainer(parsed.options, stop_requested).run();
  } catch (const hydrofoil::InvalidArgument& error) {
    std::cerr << error.what() << std::endl;
    return kExitUsage;
  } catch (const hydrofoil::SystemError& error) {
    std::cerr << error.what() << std::endl;
    return kExitSystem;
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return 1;
  }
}
