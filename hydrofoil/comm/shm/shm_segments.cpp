#include "hydrofoil/comm/shm/shm_segments.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <random>
#include <utility>

#include "hydrofoil/comm/detail/text.h"
#include "hydrofoil/memory/alignment.h"

namespace hydrofoil::comm::detail {
namespace {

constexpr uint64_t kHelloMagic = 0x6879'6472'6f68'0001;
constexpr int kStepTimeoutMs = 20'000;  // the peers are known to be there: only a hung one takes longer
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

struct Hello {
  uint64_t magic;
  uint64_t secret;  // of the listener: shows that the caller has read the store
  int64_t rank;
};

[[noreturn]] void fail(const std::string& what, int error_number) {
  throw ShmProblem{concat(what, ": ", std::strerror(error_number))};
}

uint64_t random_number() {
  std::random_device device;
  return static_cast<uint64_t>(device()) << 32 | device();
}

// Abstract: has no file, and no meaning outside of this network namespace.
sockaddr_un socket_address(const std::string& name, socklen_t& length) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (name.size() + 1 > sizeof(address.sun_path)) throw ShmProblem{"the socket name " + name + " is too long"};
  std::memcpy(address.sun_path + 1, name.data(), name.size());
  length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  return address;
}

FileDescriptor new_socket() {
  FileDescriptor socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!socket.valid()) fail("cannot make a unix socket", errno);
  return socket;
}

void wait_readable(int fd, const std::string& whom) {
  pollfd entry{.fd = fd, .events = POLLIN};
  int result = 0;
  do {
    result = ::poll(&entry, 1, kStepTimeoutMs);
  } while (result < 0 && errno == EINTR);
  if (result < 0) fail("cannot wait for " + whom, errno);
  if (result == 0) throw ShmProblem{concat("nothing came from ", whom, " in ", kStepTimeoutMs, " ms")};
}

void send_hello(int socket, const Hello& hello, const std::vector<int>& fds, const std::string& whom) {
  iovec part{.iov_base = const_cast<Hello*>(&hello), .iov_len = sizeof(hello)};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(2 * sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    std::memcpy(CMSG_DATA(header), fds.data(), fds.size() * sizeof(int));
  }
  if (::sendmsg(socket, &message, MSG_NOSIGNAL) < 0) fail("cannot send to " + whom, errno);
}

struct Received {
  Hello hello{};
  std::array<FileDescriptor, 2> fds;
};

Received receive_hello(int socket, const std::string& whom) {
  wait_readable(socket, whom);
  Received received;
  iovec part{.iov_base = &received.hello, .iov_len = sizeof(received.hello)};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(2 * sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t bytes = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  if (bytes < 0) fail("cannot receive from " + whom, errno);
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count && i < received.fds.size(); ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
      received.fds[i] = FileDescriptor(fd);
    }
  }
  if (bytes != sizeof(Hello) || received.hello.magic != kHelloMagic) {
    throw ShmProblem{whom + " sent something that is no greeting"};
  }
  return received;
}

FileDescriptor make_memory(int64_t bytes) {
  FileDescriptor memory(::memfd_create("hydrofoil-comm", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory.valid()) fail("cannot make a memfd", errno);
  if (::ftruncate(memory.get(), bytes) != 0) fail(concat("cannot size a memfd to ", bytes, " bytes"), errno);
  // Sealed, so that no peer can shrink it under the others.
  if (::fcntl(memory.get(), F_ADD_SEALS, kSeals) != 0) fail("cannot seal a memfd", errno);
  return memory;
}

// At a multiple of a huge page, see NOTE [Huge pages of shared memory] in memory/arena.cpp.
char* map_memory(int fd, int64_t bytes) {
  const int64_t reserved = bytes + memory::kHugePageBytes;
  const auto failed = [&] { fail(concat("cannot map ", bytes, " bytes of a memfd"), errno); };
  void* range =
      ::mmap(nullptr, static_cast<size_t>(reserved), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (range == MAP_FAILED) failed();
  char* begin = static_cast<char*>(range);
  const auto past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(range) % memory::kHugePageBytes);
  char* base = begin + (past == 0 ? 0 : memory::kHugePageBytes - past);
  if (::mmap(base, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
    const int error = errno;
    ::munmap(range, static_cast<size_t>(reserved));
    errno = error;
    failed();
  }
  if (base > begin) ::munmap(begin, static_cast<size_t>(base - begin));
  char* end = base + memory::round_up(bytes, memory::kPageBytes);
  if (end < begin + reserved) ::munmap(end, static_cast<size_t>(begin + reserved - end));
  return base;
}

// Peers read the tensors of a rank; only it may write them.
void protect_heap(const Segment& segment, const std::string& whom) {
  const auto bytes = static_cast<size_t>(segment.layout().heap_bytes);
  if (bytes > 0 && ::mprotect(segment.heap(), bytes, PROT_READ) != 0) fail("cannot protect the heap of " + whom, errno);
}

void check_memory(int fd, int64_t bytes, const std::string& whom) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) fail("cannot look at the memory of " + whom, errno);
  if (status.st_size != bytes || (::fcntl(fd, F_GET_SEALS) & kSeals) != kSeals) {
    throw ShmProblem{concat("the memory of ", whom, " has ", status.st_size, " bytes or is not sealed, expected ",
                            bytes, ": do the ranks run the same version with the same options?")};
  }
}

std::string rank_name(int rank) { return concat("rank ", rank); }

}  // namespace

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = other.release();
  }
  return *this;
}

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) ::close(fd_);
}

int FileDescriptor::release() { return std::exchange(fd_, -1); }

ShmSegments::~ShmSegments() {
  for (const Peer& peer : peers_) ::munmap(peer.base, static_cast<size_t>(bytes_));
}

bool ShmSegments::ended(int rank) {
  const Peer& peer = peers_[static_cast<size_t>(rank)];
  const bool by_process = peer.process.valid();
  if (!by_process && !peer.socket.valid()) return false;
  pollfd entry{.fd = by_process ? peer.process.get() : peer.socket.get(), .events = POLLIN};
  // Nobody sends on the socket after the meeting: only its end makes it readable.
  return ::poll(&entry, 1, 0) > 0;
}

bool ShmSegments::map_private(int rank, int64_t heap_offset, int64_t num_bytes, char* address) {
  const int64_t offset = segments[static_cast<size_t>(rank)].layout().heap_offset() + heap_offset;
  return ::mmap(address, static_cast<size_t>(num_bytes), PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, peers_[static_cast<size_t>(rank)].memory.get(),
                offset) != MAP_FAILED;
}

void ShmSegments::add(char* base, const SegmentLayout& layout, FileDescriptor memory, FileDescriptor socket,
                      FileDescriptor process) {
  peers_.push_back(
      {.base = base, .memory = std::move(memory), .socket = std::move(socket), .process = std::move(process)});
  bytes_ = layout.total_bytes();
  segments.emplace_back(base, layout);
}

struct ShmRendezvous::Peer {
  uint64_t secret = 0;
  FileDescriptor socket, memory, process;
};

ShmRendezvous::ShmRendezvous(int rank, SegmentLayout layout)
    : rank_(rank), layout_(layout), peers_(static_cast<size_t>(layout.size)) {}

ShmRendezvous::~ShmRendezvous() = default;

std::string ShmRendezvous::listen() {
  memory_ = make_memory(layout_.total_bytes());
  // Kernels before 5.3 and some sandboxes have no pidfds: then the socket tells of the end.
  process_ = FileDescriptor(static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0)));
  secret_ = random_number();
  const std::string name = concat("hydrofoil-", random_number(), "-", rank_);
  listener_ = new_socket();
  socklen_t length = 0;
  const sockaddr_un address = socket_address(name, length);
  if (::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0) {
    fail("cannot bind a unix socket", errno);
  }
  if (::listen(listener_.get(), layout_.size) != 0) fail("cannot listen on a unix socket", errno);
  return concat(secret_, " ", name);
}

void ShmRendezvous::connect(const std::vector<std::string>& addresses) {
  for (int peer = 0; peer < layout_.size; ++peer) {
    Peer& entry = peers_[static_cast<size_t>(peer)];
    const std::string& text = addresses[static_cast<size_t>(peer)];
    const size_t space = text.find(' ');
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), entry.secret);
    if (space == std::string::npos || parsed.ptr != text.data() + space) {
      throw ShmProblem{"the address of " + rank_name(peer) + " is malformed"};
    }
    if (peer >= rank_) continue;
    entry.socket = new_socket();
    socklen_t length = 0;
    const sockaddr_un address = socket_address(text.substr(space + 1), length);
    if (::connect(entry.socket.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0) {
      fail("cannot reach " + rank_name(peer) + " by a unix socket (another host or network namespace?)", errno);
    }
    send_hello(entry.socket.get(), {.magic = kHelloMagic, .secret = entry.secret, .rank = rank_}, {}, rank_name(peer));
  }
}

void ShmRendezvous::accept_peers() {
  for (int missing = layout_.size - 1 - rank_; missing > 0;) {
    wait_readable(listener_.get(), "the higher ranks");
    FileDescriptor socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!socket.valid()) fail("cannot accept a rank", errno);
    const Received received = receive_hello(socket.get(), "a rank that connected");
    const int64_t peer = received.hello.rank;
    // Anybody on the host can connect; who does not know the secret is no rank.
    if (received.hello.secret != secret_ || peer <= rank_ || peer >= layout_.size) continue;
    peers_[static_cast<size_t>(peer)].socket = std::move(socket);
    --missing;
  }
}

void ShmRendezvous::send_own(int peer) {
  const Peer& entry = peers_[static_cast<size_t>(peer)];
  std::vector<int> fds = {memory_.get()};
  if (process_.valid()) fds.push_back(process_.get());
  send_hello(entry.socket.get(), {.magic = kHelloMagic, .secret = entry.secret, .rank = rank_}, fds, rank_name(peer));
}

void ShmRendezvous::receive(int peer) {
  Peer& entry = peers_[static_cast<size_t>(peer)];
  Received received = receive_hello(entry.socket.get(), rank_name(peer));
  if (received.hello.secret != secret_ || received.hello.rank != peer || !received.fds[0].valid()) {
    throw ShmProblem{rank_name(peer) + " sent no memory"};
  }
  entry.memory = std::move(received.fds[0]);
  entry.process = std::move(received.fds[1]);
}

std::unique_ptr<ShmSegments> ShmRendezvous::exchange() {
  // Built before anyone has the memory.
  char* own = map_memory(memory_.get(), layout_.total_bytes());
  Segment(own, layout_).initialize(secret_);
  auto set = std::make_unique<ShmSegments>();
  try {
    accept_peers();
    for (int peer = 0; peer < layout_.size; ++peer) {
      if (peer != rank_) send_own(peer);
    }
    for (int peer = 0; peer < layout_.size; ++peer) {
      if (peer != rank_) receive(peer);
    }
    for (int peer = 0; peer < layout_.size; ++peer) {
      Peer& entry = peers_[static_cast<size_t>(peer)];
      if (peer == rank_) {
        set->add(std::exchange(own, nullptr), layout_, std::move(memory_), {}, {});
        continue;
      }
      check_memory(entry.memory.get(), layout_.total_bytes(), rank_name(peer));
      char* base = map_memory(entry.memory.get(), layout_.total_bytes());
      set->add(base, layout_, std::move(entry.memory), std::move(entry.socket), std::move(entry.process));
      protect_heap(set->segments.back(), rank_name(peer));
      const SegmentHead& head = set->segments.back().head();
      if (head.token != entry.secret || head.size != layout_.size || head.num_channels != layout_.num_channels) {
        throw ShmProblem{"the memory of " + rank_name(peer) + " is not the one it announced"};
      }
    }
  } catch (...) {
    if (own != nullptr) ::munmap(own, static_cast<size_t>(layout_.total_bytes()));
    throw;
  }
  return set;
}

}  // namespace hydrofoil::comm::detail
