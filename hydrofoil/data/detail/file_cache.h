#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "hydrofoil/storage/mapped_file.h"

namespace hydrofoil::data::detail {

// Files that are open now. A folder may hold more files than a process may open, so the one that was opened first makes
// room for the next; a reader that still holds it keeps it open. Several threads may call.
class FileCache {
 public:
  static constexpr size_t kMaxOpenFiles = 64;

  [[nodiscard]] std::shared_ptr<const storage::MappedFile> get(const std::string& path);

 private:
  std::mutex mutex_;
  std::unordered_map<std::string, std::shared_ptr<const storage::MappedFile>> files_;
  std::deque<std::string> order_;  // in which they were opened
};

}  // namespace hydrofoil::data::detail
