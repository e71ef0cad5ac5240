// Prints docs/config.md: hydrofoil_config_doc > docs/config.md
#include <iostream>

#include "hydrofoil/engine/engine_options.h"

int main() {
  std::cout << hydrofoil::engine::config_reference_markdown();
  return std::cout.flush() ? 0 : 1;
}
