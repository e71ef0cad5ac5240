#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "hydrofoil/comm/detail/segment.h"

namespace hydrofoil::comm::detail {

// Owned file descriptor; -1 is none.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(other.release()) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  ~FileDescriptor();

  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] bool valid() const { return fd_ >= 0; }
  int release();

 private:
  int fd_ = -1;
};

// Memory of all ranks of one host, each rank's in a memfd of its own that the others map. Nothing has a name in a file
// system, so nothing can be left behind. A peer that ends is known by its pidfd, which works across PID namespaces and
// whatever children of it still hold the socket; without pidfds by the socket.
class ShmSegments : public SegmentSet {
 public:
  ~ShmSegments() override;
  ShmSegments() = default;
  ShmSegments(const ShmSegments&) = delete;
  ShmSegments& operator=(const ShmSegments&) = delete;

  bool ended(int rank) override;
  bool map_private(int rank, int64_t heap_offset, int64_t num_bytes, char* address) override;

  // Takes the memory of the next rank and its mapping. `socket` and `process` are invalid for the rank itself;
  // `process` where there are no pidfds.
  void add(char* base, const SegmentLayout& layout, FileDescriptor memory, FileDescriptor socket,
           FileDescriptor process);

 private:
  struct Peer {
    char* base = nullptr;
    FileDescriptor memory;
    FileDescriptor socket;
    FileDescriptor process;
  };
  std::vector<Peer> peers_;
  int64_t bytes_ = 0;
};

// Says what failed, as a result: a rank that cannot map its peers votes, it does not throw.
struct ShmProblem {
  std::string reason;
};

// This rank's half of the meeting, in the order of the calls below. Between them all ranks tell each other by other
// means (connect.cpp: the store) whether the step has worked; a step is for ranks that all did the one before. Every
// failure throws ShmProblem.
class ShmRendezvous {
 public:
  ShmRendezvous(int rank, SegmentLayout layout);
  ~ShmRendezvous();

  // Makes the own memory and a listening socket; returns the address for the peers: socket name and secret.
  std::string listen();
  // Connects to all lower ranks. Fails where a peer is on another host or in another network namespace.
  void connect(const std::vector<std::string>& addresses);
  // Accepts the higher ranks, exchanges memfds with all and maps them.
  std::unique_ptr<ShmSegments> exchange();

 private:
  struct Peer;
  void accept_peers();
  void send_own(int peer);
  void receive(int peer);

  int rank_;
  SegmentLayout layout_;
  uint64_t secret_ = 0;
  FileDescriptor listener_, memory_, process_;
  std::vector<Peer> peers_;
};

}  // namespace hydrofoil::comm::detail
