#include "hydrofoil/storage/mapped_file.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "hydrofoil/base/error.h"

namespace hydrofoil::storage {
namespace {

// Has the kernel fetch the pages of a range at once. Random access reads nothing ahead, so without this each page of a
// range that is not in memory would be a read of its own.
void fetch(const char* bytes, int64_t num_bytes) {
  static const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(bytes) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(bytes) + static_cast<uintptr_t>(num_bytes);
  if (end - begin > page) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_WILLNEED);
}

}  // namespace

MappedFile::MappedFile(const std::string& path) : file_(File::open(path)), num_bytes_(file_.size()) {
  if (num_bytes_ == 0) return;
  void* mapped = file_.map(num_bytes_);
  ::madvise(mapped, static_cast<size_t>(num_bytes_), MADV_RANDOM);  // advice only: nothing depends on it
  bytes_ = static_cast<const char*>(mapped);
}

MappedFile::~MappedFile() {
  if (bytes_ != nullptr) ::munmap(const_cast<char*>(bytes_), static_cast<size_t>(num_bytes_));
}

// NOTE [Files that shrink while mapped]: touching a page behind the end of a file is SIGBUS, which ends the process.
// The size is looked up before each copy (one fstat, under a microsecond), so a file that was truncated is an error
// with its name. What remains is a truncation during the copy itself, of at most the range's time in memory; whoever
// must survive that reads through File. Replacing a file by renaming another over it never shrinks what is mapped.
void MappedFile::read_at(void* out, int64_t num_bytes, int64_t offset) const {
  HYDROFOIL_CHECK_ARG(offset >= 0 && num_bytes >= 0 && offset <= num_bytes_ && num_bytes <= num_bytes_ - offset,
                      "storage", "'", path(), "': got ", num_bytes, " bytes at ", offset,
                      ", expected a range within its ", num_bytes_, " bytes");
  if (num_bytes == 0) return;
  const int64_t now = file_.size();
  if (now < offset + num_bytes) {
    throw SystemError(detail::concat("[storage] cannot read '", path(),
                                     "': it changed while it was in use: it ends at byte ", now, ", expected ",
                                     num_bytes, " bytes at ", offset));
  }
  fetch(bytes_ + offset, num_bytes);
  std::memcpy(out, bytes_ + offset, static_cast<size_t>(num_bytes));
}

}  // namespace hydrofoil::storage
