#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "hydrofoil/base/error.h"
#include "hydrofoil/checkpoint/manifest.h"

// The bytes as a checkpoint's manifest: refused with an Error, or writing and parsing it again gives the same.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hydrofoil::checkpoint;
  try {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const Manifest manifest = manifest_from_json(text, "fuzz");
    validate_manifest(manifest, "fuzz");
    if (manifest_from_json(manifest_to_json(manifest), "fuzz") != manifest) std::abort();
  } catch (const hydrofoil::InternalError&) {
    std::abort();  // no input may break an invariant
  } catch (const hydrofoil::Error&) {
  }
  return 0;
}
