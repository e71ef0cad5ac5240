#include "apps/doctor/probes.h"

#include <fcntl.h>
#include <linux/io_uring.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace hydrofoil::doctor {
namespace {

constexpr size_t kHugePageBytes = size_t{2} << 20;
constexpr int kCollapse = 25;  // MADV_COLLAPSE, which the headers of older systems lack

Probe refused(const char* call) { return {.works = false, .reason = std::string(call) + ": " + std::strerror(errno)}; }

struct Descriptor {
  explicit Descriptor(int fd_) : fd(fd_) {}
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int fd;
};

struct Mapping {
  Mapping(int fd, size_t bytes_) : bytes(bytes_) {
    base = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  ~Mapping() {
    if (base != MAP_FAILED) ::munmap(base, bytes);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  size_t bytes;
  void* base;
};

int make_memfd() { return ::memfd_create("hydrofoil-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING); }

// Beyond a limit of file sizes (ulimit -f) the kernel would end this process by SIGXFSZ, where Python has it ignored.
int set_size(int fd, size_t bytes) {
  const auto before = ::signal(SIGXFSZ, SIG_IGN);
  const int result = ::ftruncate(fd, static_cast<off_t>(bytes));
  const int error = errno;
  ::signal(SIGXFSZ, before);
  errno = error;
  return result;
}

}  // namespace

Probe probe_memfd() {
  const Descriptor memory(make_memfd());
  if (memory.fd < 0) return refused("memfd_create");
  if (set_size(memory.fd, kHugePageBytes) != 0) return refused("ftruncate of a memfd");
  if (::fcntl(memory.fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) return refused("F_ADD_SEALS");
  const Mapping mapping(memory.fd, kHugePageBytes);
  if (mapping.base == MAP_FAILED) return refused("mmap of a memfd");
  return {.works = true, .reason = ""};
}

Probe probe_shared_huge_pages() {
  const Descriptor memory(make_memfd());
  if (memory.fd < 0) return refused("memfd_create");
  if (set_size(memory.fd, 2 * kHugePageBytes) != 0) return refused("ftruncate of a memfd");
  const Mapping mapping(memory.fd, 2 * kHugePageBytes);
  if (mapping.base == MAP_FAILED) return refused("mmap of a memfd");
  // The mapping begins anywhere, but a huge page of a file begins where both the file and the addresses have a
  // multiple.
  const auto address = reinterpret_cast<uintptr_t>(mapping.base);
  const size_t past = address % kHugePageBytes;
  char* page = static_cast<char*>(mapping.base) + (past == 0 ? 0 : kHugePageBytes - past);
  if (past != 0) {
    // Moves the file's first huge page there.
    void* moved = ::mmap(page, kHugePageBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memory.fd, 0);
    if (moved == MAP_FAILED) return refused("mmap of a memfd");
  }
  *page = 1;
  if (::madvise(page, kHugePageBytes, kCollapse) != 0) return refused("madvise(MADV_COLLAPSE)");
  return {.works = true, .reason = ""};
}

Probe probe_io_uring() {
  io_uring_params parameters{};
  const Descriptor ring(static_cast<int>(::syscall(SYS_io_uring_setup, 4, &parameters)));
  return ring.fd < 0 ? refused("io_uring_setup") : Probe{.works = true, .reason = ""};
}

Probe probe_writable(const std::string& folder) {
  std::string path = folder + "/hydrofoil_doctor_XXXXXX";
  const Descriptor file(::mkostemp(path.data(), O_CLOEXEC));
  if (file.fd < 0) return refused("creating a file");
  ::unlink(path.c_str());
  return {.works = true, .reason = ""};
}

}  // namespace hydrofoil::doctor
