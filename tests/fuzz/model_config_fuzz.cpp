#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "hydrofoil/base/error.h"
#include "hydrofoil/models/model_config.h"

// The bytes as a Hugging Face config.json: refused with InvalidArgument, or read into a config that is valid.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hydrofoil;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const models::ModelConfig config = models::parse_model_config(text, "fuzz");
    try {
      config.validate();
    } catch (const Error&) {
      std::abort();
    }
    if (config.vocab_size() < 1 || !(config.initializer_range() >= 0.0)) std::abort();
  } catch (const InvalidArgument&) {
  }
  return 0;
}
