#pragma once

#include <cstdint>
#include <string>

#include "hydrofoil/storage/file.h"

namespace hydrofoil::storage {

// A regular file mapped for random reads: nothing is read ahead, the page cache is shared by all ranks of a host.
// Several threads may read. See NOTE [Files that shrink while mapped].
class MappedFile {
 public:
  // Throws SystemError where it cannot be opened or mapped. An empty file is fine.
  explicit MappedFile(const std::string& path);
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  // Copies bytes [offset, offset + num_bytes). Throws InvalidArgument outside size(), SystemError with the byte where
  // the file ends now, if that is before the range does.
  void read_at(void* out, int64_t num_bytes, int64_t offset) const;

  [[nodiscard]] int64_t size() const { return num_bytes_; }  // when it was opened
  [[nodiscard]] const std::string& path() const { return file_.path(); }

 private:
  File file_;
  int64_t num_bytes_ = 0;
  const char* bytes_ = nullptr;
};

}  // namespace hydrofoil::storage
