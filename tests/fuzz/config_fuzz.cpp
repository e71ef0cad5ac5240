#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "hydrofoil/base/error.h"
#include "hydrofoil/engine/engine_options.h"

namespace {

// Warnings about a config are not what is looked for.
[[maybe_unused]] const int quiet = ::setenv("HYDROFOIL_LOG_LEVEL", "error", 1);

}  // namespace

// The bytes as a ds_config.json, or base64 of it: refused with InvalidArgument, or resolved into options that are
// valid.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hydrofoil;
  const std::string text(reinterpret_cast<const char*>(data), size);
  std::error_code ignored;
  if (text.find('\0') == std::string::npos && std::filesystem::exists(text, ignored)) return 0;  // a path, not text
  const engine::ResolveContext context{.world_size = 1 + static_cast<int>(size % 3), .cpu_device = size % 2 == 0};
  try {
    const engine::ResolvedOptions resolved = engine::resolve_engine_options(text, context);
    try {
      resolved.options.validate();
    } catch (const Error&) {
      std::abort();
    }
    const engine::EngineOptions& options = resolved.options;
    if (options.train_batch_size !=
        options.train_micro_batch_size_per_gpu * options.gradient_accumulation_steps * context.world_size) {
      std::abort();
    }
  } catch (const InvalidArgument&) {
  }
  return 0;
}
