#include "hydrofoil/storage/atomic_directory.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/storage/file.h"

namespace hydrofoil::storage {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFunction = "AtomicDirectory";
constexpr std::string_view kStagingSuffix = ".hydrofoil-staging";
constexpr std::string_view kOldSuffix = ".hydrofoil-old";
constexpr unsigned kRenameExchange = 2;  // RENAME_EXCHANGE of <linux/fs.h>

std::string beside(const std::string& final_path, std::string_view suffix) {
  const size_t slash = final_path.rfind('/');
  const size_t start = slash == std::string::npos ? 0 : slash + 1;
  return detail::concat(final_path.substr(0, start), ".", final_path.substr(start), suffix);
}

void check(const std::error_code& error, const char* action, const std::string& path) {
  if (error) throw_system_error(kFunction, detail::concat("cannot ", action, " '", path, "'"), error.value());
}

bool exists(const std::string& path) {
  std::error_code error;
  const bool found = fs::exists(fs::symlink_status(path, error));
  // not_found is no error for exists(); what is left is a directory that may not be searched and the like.
  if (!found && error && error != std::errc::no_such_file_or_directory) check(error, "inspect", path);
  return found;
}

void remove_tree(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  check(error, "remove", path);
}

// True where both names now stand for each other's directories; false where the system cannot do that.
bool exchange_paths(const std::string& a, const std::string& b) {
#ifdef SYS_renameat2
  if (::syscall(SYS_renameat2, AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), kRenameExchange) == 0) return true;
  if (errno != EINVAL && errno != ENOSYS && errno != EPERM && errno != ENOTSUP) {
    throw_system_error(kFunction, detail::concat("cannot exchange '", a, "' and '", b, "'"), errno);
  }
#endif
  return false;
}

void sync_tree(const std::string& directory) {
  std::error_code error;
  fs::directory_iterator entries(directory, error);
  check(error, "list", directory);
  for (; entries != fs::directory_iterator(); entries.increment(error)) {
    check(error, "list", directory);
    const std::string path = entries->path().string();
    const bool is_directory = entries->is_directory(error);
    check(error, "inspect", path);
    if (is_directory) {
      sync_tree(path);
    } else {
      File::open(path).sync();
    }
  }
  check(error, "list", directory);
  sync_directory(directory);
}

// Undoes or finishes an interrupted replacement of `final_path`.
void repair_old(const std::string& final_path) {
  const std::string old_path = beside(final_path, kOldSuffix);
  if (!exists(old_path)) return;
  if (exists(final_path)) {
    remove_tree(old_path);
  } else {
    rename_path(old_path, final_path);
  }
}

// "a" of ".a.hydrofoil-old"; nullopt for other names.
std::optional<std::string> name_of_old(const std::string& name) {
  if (!name.starts_with('.') || !name.ends_with(kOldSuffix) || name.size() <= kOldSuffix.size() + 1)
    return std::nullopt;
  return name.substr(1, name.size() - 1 - kOldSuffix.size());
}

std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entries(directory, error), end; !error && entries != end; entries.increment(error)) {
    names.push_back(entries->path().filename().string());
  }
  check(error, "list", directory);
  return names;
}

}  // namespace

AtomicDirectory::AtomicDirectory(std::string final_path, AtomicDirectoryOptions options)
    : final_path_(std::move(final_path)), options_(std::move(options)) {
  HYDROFOIL_CHECK_ARG(!final_path_.empty() && final_path_.back() != '/', kFunction, "final path: got '", final_path_,
                      "', expected a path that ends in a name");
  staging_path_ = staging_path_of(final_path_);
  std::error_code error;
  fs::create_directories(parent_directory(final_path_), error);
  check(error, "create", parent_directory(final_path_));
  remove_tree(staging_path_);
  repair_old(final_path_);
  fs::create_directory(staging_path_, error);
  check(error, "create", staging_path_);
  try {
    reached("prepared");
  } catch (const std::exception&) {
    remove_tree(staging_path_);
    throw;
  }
}

AtomicDirectory::~AtomicDirectory() {
  if (state_ == State::kCommitted) return;
  // What cannot be removed here is removed by the next writer.
  std::error_code ignored;
  fs::remove_all(staging_path_, ignored);
}

std::string AtomicDirectory::staging_path_of(const std::string& final_path) {
  return beside(final_path, kStagingSuffix);
}

std::string AtomicDirectory::committed_path(const std::string& final_path) {
  const std::string old_path = beside(final_path, kOldSuffix);
  return !exists(final_path) && exists(old_path) ? old_path : final_path;
}

void AtomicDirectory::reached(std::string_view stage) const {
  if (options_.on_stage) options_.on_stage(stage);
}

void AtomicDirectory::commit() {
  HYDROFOIL_CHECK_ARG(state_ == State::kStaging, kFunction, "'", final_path_, "': committed twice");
  sync_tree(staging_path_);
  reached("synced");
  replace();
}

void AtomicDirectory::replace() {
  const std::string parent = parent_directory(final_path_);
  const std::string old_path = beside(final_path_, kOldSuffix);
  if (!exists(final_path_)) {
    rename_path(staging_path_, final_path_);
    state_ = State::kCommitted;
    sync_directory(parent);
    reached("renamed");
    return;
  }
  if (options_.exchange && exchange_paths(staging_path_, final_path_)) {
    state_ = State::kCommitted;
    sync_directory(parent);
    reached("renamed");
    remove_tree(staging_path_);
  } else {
    rename_path(final_path_, old_path);
    try {
      reached("moved aside");
      rename_path(staging_path_, final_path_);
    } catch (const std::exception&) {
      rename_path(old_path, final_path_);
      throw;
    }
    state_ = State::kCommitted;
    sync_directory(parent);
    reached("renamed");
    remove_tree(old_path);
  }
  reached("removed");
}

std::vector<std::string> committed_directories(const std::string& parent) {
  if (!exists(parent)) return {};
  std::set<std::string> found;
  for (const std::string& entry : names_in(parent)) {
    const std::string name = name_of_old(entry).value_or(entry);
    std::error_code ignored;  // what cannot be inspected is no directory that could be read
    const bool usable = fs::is_directory(AtomicDirectory::committed_path(parent + "/" + name), ignored);
    if (usable && !name.starts_with('.')) found.insert(name);
  }
  return {found.begin(), found.end()};
}

void repair_directory(const std::string& parent) {
  if (!exists(parent)) return;
  for (const std::string& name : names_in(parent)) {
    const std::string path = parent + "/" + name;
    if (name.starts_with('.') && name.ends_with(kStagingSuffix)) {
      remove_tree(path);
    } else if (const auto original = name_of_old(name)) {
      repair_old(parent + "/" + *original);
    } else if (name.ends_with(kPartialSuffix)) {
      remove_tree(path);
    }
  }
}

}  // namespace hydrofoil::storage
