#include "apps/config_command.h"
#include "hydrofoil/base/error.h"

namespace hydrofoil {

int config_command(std::span<const std::string>) {
  throw InvalidArgument("[hydrofoil config] this build has no configuration module (target hydrofoil_options)");
}

}  // namespace hydrofoil
