#include <cstddef>
#include <cstdint>
#include <string_view>

#include "hydrofoil/base/error.h"
#include "hydrofoil/trace/summary.h"

// The bytes as a trace file: refused with an Error, or summed up.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  try {
    (void)hydrofoil::trace::summarize({reinterpret_cast<const char*>(bytes), size}, "fuzz");
  } catch (const hydrofoil::InvalidArgument&) {
  }
  return 0;
}
