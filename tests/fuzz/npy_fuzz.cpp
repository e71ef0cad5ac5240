#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/data/npy.h"
#include "hydrofoil/data/token_file.h"
#include "hydrofoil/storage/mapped_file.h"

namespace {

using namespace hydrofoil;

// Every token of an accepted file is read, or refused with an Error; none is outside the vocabulary.
void read_all(const data::TokenRange& range, const uint8_t* bytes, size_t size) {
  constexpr int64_t kVocabSize = 1000;
  const int descriptor = ::memfd_create("npy", MFD_CLOEXEC);
  if (descriptor < 0 || ::write(descriptor, bytes, size) != static_cast<ssize_t>(size)) std::abort();
  try {
    const storage::MappedFile file("/proc/self/fd/" + std::to_string(descriptor));
    std::vector<int64_t> tokens(static_cast<size_t>(range.num_tokens));
    data::read_tokens(range, file, 0, tokens, kVocabSize);
    if (std::any_of(tokens.begin(), tokens.end(), [](int64_t token) { return token < 0 || token >= kVocabSize; })) {
      std::abort();
    }
  } catch (const InvalidArgument&) {
  }
  ::close(descriptor);
}

}  // namespace

// The bytes as a .npy file: refused with an Error, or its tokens lie within it.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  try {
    const std::string_view text(reinterpret_cast<const char*>(bytes), size);
    const auto file_bytes = static_cast<int64_t>(size);
    const data::TokenRange range = data::parse_npy_header(text.substr(0, data::kMaxNpyPrefixBytes), file_bytes, "fuzz");
    if (range.num_tokens < 1 || range.byte_offset + range.num_tokens * data::token_bytes(range.type) != file_bytes) {
      std::abort();
    }
    read_all(range, bytes, size);
  } catch (const InvalidArgument&) {
  }
  return 0;
}
