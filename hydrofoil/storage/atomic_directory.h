#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace hydrofoil::storage {

// Called with the name of each stage that an AtomicDirectory has reached, in order: "prepared", "synced", "moved aside"
// (only where the old and the new cannot be exchanged at once), "renamed", "removed". What it throws aborts there.
using StageObserver = std::function<void(std::string_view stage)>;

struct AtomicDirectoryOptions {
  StageObserver on_stage;
  bool exchange = true;  // swap an old directory with the new one in one operation where the file system can
};

// A directory that appears, or replaces an old one, whole: fill staging_path(), then commit().
//
// After a crash at any instruction committed_path() names the whole old or the whole new directory. The object belongs
// to one process (rank 0); others write into staging_path_of(final_path), which depends on the name alone. All calls
// throw SystemError with the path. The destructor removes what was not committed.
//
// NOTE [Names beside a directory]: for <parent>/<name>, new content grows in <parent>/.<name>.hydrofoil-staging, and
// where old and new cannot be exchanged, the old one lies in <parent>/.<name>.hydrofoil-old for two renames' time.
class AtomicDirectory {
 public:
  // Repairs what crashed writers of this directory left and creates an empty staging directory; parents are created.
  explicit AtomicDirectory(std::string final_path, AtomicDirectoryOptions options = {});
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;

  [[nodiscard]] const std::string& staging_path() const { return staging_path_; }
  [[nodiscard]] const std::string& final_path() const { return final_path_; }

  // Syncs every file and directory in staging, then renames. Called once.
  void commit();

  [[nodiscard]] static std::string staging_path_of(const std::string& final_path);
  // `final_path` itself, or where a crash left the old directory aside, that; changes nothing.
  [[nodiscard]] static std::string committed_path(const std::string& final_path);

 private:
  enum class State { kStaging, kCommitted };

  void reached(std::string_view stage) const;
  void replace();

  std::string final_path_;
  std::string staging_path_;
  AtomicDirectoryOptions options_;
  State state_ = State::kStaging;
};

// Sorted names of the directories in `parent` whose committed_path() exists; hidden ones are left out. Empty where
// `parent` does not exist.
[[nodiscard]] std::vector<std::string> committed_directories(const std::string& parent);

// Removes every staging directory of a crashed writer in `parent`, finishes or undoes its interrupted renames, and
// removes half-written "*.partial" files of write_file_atomically in it. Only while nobody else writes there.
void repair_directory(const std::string& parent);

}  // namespace hydrofoil::storage
