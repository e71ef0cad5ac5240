#include "hydrofoil/comm/local/local_group.h"

#include <sys/mman.h>

#include <cerrno>
#include <memory>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/detail/exchange.h"
#include "hydrofoil/comm/detail/segment.h"
#include "hydrofoil/comm/detail/text.h"
#include "hydrofoil/comm/local/self_backend.h"

namespace hydrofoil::comm {
namespace {

class LocalSegments : public detail::SegmentSet {
 public:
  explicit LocalSegments(const detail::SegmentLayout& layout) : bytes_(static_cast<size_t>(layout.total_bytes())) {
    // Anonymous memory costs nothing until it is touched: mailboxes that nobody uses stay free.
    for (int rank = 0; rank < layout.size; ++rank) {
      void* base = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (base == MAP_FAILED) {
        const int error = errno;
        unmap();
        throw_system_error("comm::make_local_groups", detail::concat("cannot map ", bytes_, " bytes"), error);
      }
      bases_.push_back(base);
      segments.emplace_back(static_cast<char*>(base), layout);
      segments.back().initialize(0);
    }
  }
  ~LocalSegments() override { unmap(); }
  LocalSegments(const LocalSegments&) = delete;
  LocalSegments& operator=(const LocalSegments&) = delete;

  bool ended(int /*rank*/) override { return false; }

 private:
  void unmap() {
    for (void* base : bases_) ::munmap(base, bytes_);
  }

  size_t bytes_;
  std::vector<void*> bases_;
};

}  // namespace

std::vector<std::vector<Group>> make_local_channels(int size, int num_channels, GroupOptions options) {
  constexpr const char* kFunction = "comm::make_local_channels";
  HYDROFOIL_CHECK_ARG(size >= 1 && size <= detail::kMaxSegmentRanks, kFunction, "size is ", size, ", expected 1 to ",
                      detail::kMaxSegmentRanks);
  HYDROFOIL_CHECK_ARG(num_channels >= 1 && num_channels <= detail::kMaxChannels, kFunction, "num_channels is ",
                      num_channels, ", expected 1 to ", detail::kMaxChannels);
  std::vector<std::vector<Group>> groups(static_cast<size_t>(size));
  if (size == 1) {
    for (int c = 0; c < num_channels; ++c) groups[0].emplace_back(std::make_unique<SelfBackend>(), options);
    return groups;
  }
  const auto set = std::make_shared<LocalSegments>(detail::SegmentLayout{.size = size, .num_channels = num_channels});
  for (int rank = 0; rank < size; ++rank) {
    const auto board = detail::make_segment_board(set, rank);
    for (int c = 0; c < num_channels; ++c) {
      detail::ExchangeOptions exchange{.backend_name = "local", .group = options.name, .rank = rank, .channel = c};
      groups[static_cast<size_t>(rank)].emplace_back(
          std::make_unique<detail::Exchange>(set, board, std::move(exchange)), options);
    }
  }
  return groups;
}

std::vector<Group> make_local_groups(int size, GroupOptions options) {
  std::vector<Group> groups;
  for (auto& channels : make_local_channels(size, 1, std::move(options))) groups.push_back(std::move(channels[0]));
  return groups;
}

}  // namespace hydrofoil::comm
