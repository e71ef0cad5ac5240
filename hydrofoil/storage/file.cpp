#include "hydrofoil/storage/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "hydrofoil/base/error.h"

namespace hydrofoil::storage {
namespace {

// Linux moves at most 2 GiB - 4 KiB a call.
constexpr int64_t kMaxBytesPerCall = int64_t{1} << 30;

[[noreturn]] void fail(const char* action, const std::string& path, int error_number) {
  throw_system_error("storage", detail::concat("cannot ", action, " '", path, "'"), error_number);
}

int open_descriptor(const char* action, const std::string& path, int flags) {
  int descriptor = -1;
  do {
    descriptor = ::open(path.c_str(), flags | O_CLOEXEC, 0644);
  } while (descriptor < 0 && errno == EINTR);
  if (descriptor < 0) fail(action, path, errno);
  return descriptor;
}

}  // namespace

File File::create(const std::string& path) {
  return File(open_descriptor("create", path, O_WRONLY | O_CREAT | O_TRUNC), path);
}

File File::open(const std::string& path) {
  // Non-blocking: opening a pipe without a writer must fail below, not hang here.
  File file(open_descriptor("open", path, O_RDONLY | O_NONBLOCK), path);
  struct stat status {};
  if (::fstat(file.descriptor_, &status) != 0) fail("inspect", path, errno);
  if (!S_ISREG(status.st_mode)) {
    throw SystemError(detail::concat("[storage] cannot read '", path, "': it is not a regular file"));
  }
  return file;
}

File::File(File&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)), path_(std::move(other.path_)) {}

File& File::operator=(File&& other) noexcept {
  if (this != &other) {
    if (descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = std::exchange(other.descriptor_, -1);
    path_ = std::move(other.path_);
  }
  return *this;
}

File::~File() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void File::write_at(const void* data, int64_t num_bytes, int64_t offset) {
  const char* bytes = static_cast<const char*>(data);
  while (num_bytes > 0) {
    const ssize_t moved =
        ::pwrite(descriptor_, bytes, static_cast<size_t>(std::min(num_bytes, kMaxBytesPerCall)), offset);
    if (moved < 0 && errno == EINTR) continue;
    if (moved <= 0) fail("write", path_, moved < 0 ? errno : EIO);
    bytes += moved;
    offset += moved;
    num_bytes -= moved;
  }
}

void File::read_at(void* data, int64_t num_bytes, int64_t offset) const {
  char* bytes = static_cast<char*>(data);
  while (num_bytes > 0) {
    const ssize_t moved =
        ::pread(descriptor_, bytes, static_cast<size_t>(std::min(num_bytes, kMaxBytesPerCall)), offset);
    if (moved < 0 && errno == EINTR) continue;
    if (moved < 0) fail("read", path_, errno);
    if (moved == 0) {
      throw SystemError(detail::concat("[storage] cannot read '", path_, "': it ends at byte ", offset, ", ", num_bytes,
                                       " bytes too early"));
    }
    bytes += moved;
    offset += moved;
    num_bytes -= moved;
  }
}

void* File::map(int64_t num_bytes) const {
  void* mapped = ::mmap(nullptr, static_cast<size_t>(num_bytes), PROT_READ, MAP_SHARED, descriptor_, 0);
  if (mapped == MAP_FAILED) fail("map", path_, errno);
  return mapped;
}

void File::sync() {
  while (::fsync(descriptor_) != 0) {
    if (errno != EINTR) fail("sync", path_, errno);
  }
}

void File::close() {
  if (descriptor_ < 0) return;
  // Linux releases the descriptor whatever close() says, so it is never called twice.
  if (::close(std::exchange(descriptor_, -1)) != 0 && errno != EINTR) fail("close", path_, errno);
}

int64_t File::size() const {
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) fail("inspect", path_, errno);
  return status.st_size;
}

void sync_directory(const std::string& path) {
  const int descriptor = open_descriptor("open", path, O_RDONLY | O_DIRECTORY);
  int error_number = 0;
  while (::fsync(descriptor) != 0) {
    if (errno == EINTR) continue;
    // Some file systems have no fsync for directories and order their metadata themselves.
    if (errno != EINVAL) error_number = errno;
    break;
  }
  ::close(descriptor);
  if (error_number != 0) fail("sync", path, error_number);
}

std::string parent_directory(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

void rename_path(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) fail(("rename '" + from + "' to").c_str(), to, errno);
}

std::string read_file(const std::string& path, int64_t max_bytes) {
  const File file = File::open(path);
  const int64_t num_bytes = file.size();
  HYDROFOIL_CHECK_ARG(num_bytes <= max_bytes, "read_file", "'", path, "': got ", num_bytes, " bytes, expected at most ",
                      max_bytes);
  std::string bytes(static_cast<size_t>(num_bytes), '\0');
  file.read_at(bytes.data(), num_bytes, 0);
  return bytes;
}

void write_file_atomically(const std::string& path, std::string_view bytes) {
  const std::string partial = path + std::string(kPartialSuffix);
  try {
    File file = File::create(partial);
    file.write_at(bytes.data(), static_cast<int64_t>(bytes.size()), 0);
    file.sync();
    file.close();
    rename_path(partial, path);
  } catch (const Error&) {
    ::unlink(partial.c_str());
    throw;
  }
  sync_directory(parent_directory(path));
}

}  // namespace hydrofoil::storage
