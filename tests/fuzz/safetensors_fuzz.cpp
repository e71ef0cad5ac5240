#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/storage/safetensors.h"

// The bytes as a safetensors file: it is refused with an Error, or every tensor of it can be read whole.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const int descriptor = ::memfd_create("safetensors", MFD_CLOEXEC);
  if (descriptor < 0 || ::write(descriptor, data, size) != static_cast<ssize_t>(size)) std::abort();
  const std::string path = "/proc/self/fd/" + std::to_string(descriptor);
  try {
    const hydrofoil::storage::SafetensorsReader reader(path);
    int64_t total = 0;
    for (const auto& entry : reader.tensors()) {
      std::vector<char> out(static_cast<size_t>(entry.num_bytes));
      reader.read(entry, 0, entry.num_bytes, out.data());
      total += entry.num_bytes;
    }
    if (total > static_cast<int64_t>(size)) std::abort();
  } catch (const hydrofoil::InternalError&) {
    std::abort();  // no input may break an invariant
  } catch (const hydrofoil::Error&) {
  }
  ::close(descriptor);
  return 0;
}
