#include "apps/config_command.h"

#include "hydrofoil/engine/engine_options.h"

namespace hydrofoil {

std::string explain_config(const ConfigArguments& arguments) {
  const engine::ResolveContext context{.world_size = arguments.world_size, .cpu_device = arguments.cpu_device};
  return engine::explain_config(arguments.text_or_path, context);
}

}  // namespace hydrofoil
