#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "hydrofoil/comm/backend.h"

namespace hydrofoil::comm::detail {

inline constexpr int64_t kSlotBytes = 512 * 1024;    // at most, of one step
inline constexpr int64_t kRingBytes = 2048 * 1024;   // in which the slots of a channel follow each other
inline constexpr int64_t kMailboxBytes = 64 * 1024;  // one slot of a sender for one receiver
inline constexpr int kMaxChannels = 64;
inline constexpr int kMaxSegmentRanks = 4096;

// What a rank is about to do: compared by its peers.
struct OpHeader {
  uint8_t kind;
  uint8_t reduce;
  int8_t dtype;
  int32_t peer;
  int64_t numel;
  uint64_t signature;
  int64_t shared_offset;  // of the input in the owner's heap; -1: it lies elsewhere, and goes through the slots
  std::array<char, 96> unit;
};

// A counter that others sleep on.
struct alignas(64) Signal {
  std::atomic<uint32_t> value;
  std::atomic<uint32_t> waiters;
};

enum StateBits : uint32_t { kFailedBit = 1, kLeftBit = 2 };

// Owner: the rank of the segment; all others read it and sleep on the signal.
struct alignas(64) ChannelBlock {
  Signal posted;  // steps of the exchange for which the owner's slot is filled
  alignas(64) std::atomic<uint32_t> state;
  std::array<char, 1020> reason;  // written before kFailedBit is set
  std::atomic<uint64_t> issued;
  std::array<OpHeader, 2> headers;
};

// From the owner of the segment to one other rank.
struct alignas(64) Mailbox {
  Signal posted;  // parts that the sender has written
  Signal taken;   // parts that the receiver has copied out
  std::array<OpHeader, 2> headers;
};

// What the owner's caller waits for. Readers retry while `version` is odd or changes.
struct alignas(64) WaitRecord {
  std::atomic<uint32_t> version;
  std::atomic<int32_t> channel;  // -1: waits for nothing
  std::atomic<uint64_t> sequence;
  std::array<std::atomic<uint64_t>, 32> text;
};

struct alignas(64) SegmentHead {
  uint64_t magic;
  uint64_t token;  // random, shows that two mappings are the same memory
  int32_t size;
  int32_t num_channels;
  WaitRecord wait;
};

// Where things lie in a rank's segment; the same on all ranks.
struct SegmentLayout {
  int size = 1;
  int num_channels = 1;
  int64_t heap_bytes = 0;  // of the owner's tensors, which its peers may read; whole pages

  [[nodiscard]] int64_t slots_offset() const;
  [[nodiscard]] int64_t mailbox_slots_offset() const;
  [[nodiscard]] int64_t heap_offset() const;
  [[nodiscard]] int64_t total_bytes() const;
};

// One rank's memory, mapped. Not owned.
class Segment {
 public:
  Segment() = default;
  Segment(char* base, SegmentLayout layout) : base_(base), layout_(layout) {}

  // Builds the owner's counters in zeroed memory.
  void initialize(uint64_t token) const;

  [[nodiscard]] SegmentHead& head() const { return *reinterpret_cast<SegmentHead*>(base_); }
  [[nodiscard]] ChannelBlock& channel(int channel) const;
  [[nodiscard]] char* slot(int channel, int64_t ring_offset) const;
  [[nodiscard]] Mailbox& mailbox(int channel, int receiver) const;
  [[nodiscard]] char* mailbox_slot(int channel, int receiver, uint32_t part) const;
  [[nodiscard]] char* heap() const { return base_ + layout_.heap_offset(); }
  [[nodiscard]] const SegmentLayout& layout() const { return layout_; }

 private:
  char* base_ = nullptr;
  SegmentLayout layout_;
};

// All ranks' segments as this process maps them, and what it takes to know that a peer has ended.
class SegmentSet : public std::enable_shared_from_this<SegmentSet> {
 public:
  virtual ~SegmentSet() = default;
  // True where the peer's process has ended (always false for threads).
  [[nodiscard]] virtual bool ended(int rank) = 0;

  // See Backend::map_private.
  [[nodiscard]] virtual bool map_private(int rank, int64_t heap_offset, int64_t num_bytes, char* address) {
    return false;
  }

  // An equal part of `rank`'s own heap for each use; null where there is none. It keeps the set mapped.
  [[nodiscard]] std::shared_ptr<memory::Arena> arena(int rank, SharedUse use);

  std::vector<Segment> segments;

 private:
  std::mutex mutex_;
  std::array<std::weak_ptr<memory::Arena>, 3> arenas_;
};

// StatusBoard in the segments.
[[nodiscard]] std::shared_ptr<StatusBoard> make_segment_board(std::shared_ptr<SegmentSet> set, int rank);

}  // namespace hydrofoil::comm::detail
