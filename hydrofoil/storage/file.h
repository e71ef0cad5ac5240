#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace hydrofoil::storage {

// An open file descriptor. Every call throws SystemError that names the file, the operation and the reason, short
// reads and full disks included; interrupted calls go on. The destructor closes without an error.
class File {
 public:
  // Creates the file, or empties it where it exists.
  [[nodiscard]] static File create(const std::string& path);
  // Opens a regular file for reading; anything else (directory, pipe, device) is a SystemError.
  [[nodiscard]] static File open(const std::string& path);

  File() = default;
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File();

  // Both move exactly `num_bytes` at byte `offset` of the file.
  void write_at(const void* data, int64_t num_bytes, int64_t offset);
  void read_at(void* data, int64_t num_bytes, int64_t offset) const;

  // Maps the first `num_bytes` (at least 1) for reading; the caller unmaps them. Use MappedFile.
  [[nodiscard]] void* map(int64_t num_bytes) const;

  // Returns when the data is on the device (fsync).
  void sync();
  // Closes and reports what the close reports; nothing where it is closed.
  void close();

  [[nodiscard]] int64_t size() const;
  [[nodiscard]] bool is_open() const { return descriptor_ >= 0; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  File(int descriptor, std::string path) : descriptor_(descriptor), path_(std::move(path)) {}

  int descriptor_ = -1;
  std::string path_;
};

// Makes the directory's entries (created, renamed, removed names) durable.
void sync_directory(const std::string& path);

// The directory of `path`; "." where it names none.
[[nodiscard]] std::string parent_directory(const std::string& path);

// Renames within one file system, replacing a file at `to`.
void rename_path(const std::string& from, const std::string& to);

// Ends the name under which a file is written until it is whole and gets its own.
inline constexpr std::string_view kPartialSuffix = ".hydrofoil-partial";

// Whole content of a regular file. Throws InvalidArgument where it is larger than `max_bytes`.
[[nodiscard]] std::string read_file(const std::string& path, int64_t max_bytes);

// Replaces the file's content: a reader sees the old or the new bytes, never a mixture, also after a crash. An error
// leaves the old file as it was, and nothing beside it.
void write_file_atomically(const std::string& path, std::string_view bytes);

}  // namespace hydrofoil::storage
