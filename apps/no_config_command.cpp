#include "apps/config_command.h"
#include "hydrofoil/base/error.h"

namespace hydrofoil {

std::string explain_config(const ConfigArguments&) {
  throw InvalidArgument("[hydrofoil config explain] this build has no configuration module (target hydrofoil_options)");
}

}  // namespace hydrofoil
