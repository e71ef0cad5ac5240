#include "hydrofoil/data/detail/file_cache.h"

namespace hydrofoil::data::detail {

std::shared_ptr<const storage::MappedFile> FileCache::get(const std::string& path) {
  const std::lock_guard lock(mutex_);
  const auto found = files_.find(path);
  if (found != files_.end()) return found->second;
  auto file = std::make_shared<const storage::MappedFile>(path);
  if (order_.size() == kMaxOpenFiles) {
    files_.erase(order_.front());
    order_.pop_front();
  }
  order_.push_back(path);
  files_.emplace(path, file);
  return file;
}

}  // namespace hydrofoil::data::detail
