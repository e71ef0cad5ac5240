#include "hydrofoil/comm/detail/segment.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>

#include "hydrofoil/comm/status_board.h"
#include "hydrofoil/memory/alignment.h"
#include "hydrofoil/memory/arena.h"

namespace hydrofoil::comm::detail {
namespace {

constexpr uint64_t kMagic = 0x6879'6472'6f66'0002;
using memory::kPageBytes;
using memory::round_up;

int64_t channels_offset() { return round_up(sizeof(SegmentHead), kPageBytes); }

int64_t mailboxes_offset(const SegmentLayout& layout) {
  return channels_offset() + layout.num_channels * static_cast<int64_t>(sizeof(ChannelBlock));
}

class SegmentBoard : public StatusBoard {
 public:
  SegmentBoard(std::shared_ptr<SegmentSet> set, int rank) : set_(std::move(set)), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(set_->segments.size()); }

  void issue(int channel, uint64_t sequence) override {
    own().channel(channel).issued.store(sequence, std::memory_order_release);
  }

  void block(const RankStatus::Wait& wait) override {
    const std::lock_guard lock(mutex_);
    ++callers_;
    write(callers_ == 1 ? wait : RankStatus::Wait{.channel = -1});
  }

  void unblock() override {
    const std::lock_guard lock(mutex_);
    --callers_;
    write({.channel = -1});
  }

  void post() override {}

  std::optional<RankStatus> read(int rank) override {
    const Segment& segment = set_->segments[static_cast<size_t>(rank)];
    RankStatus status;
    // The wait first: what a rank has not issued after it was seen waiting, it cannot have issued before.
    status.blocked = read_wait(segment.head().wait);
    for (int channel = 0; channel < segment.layout().num_channels; ++channel) {
      const ChannelBlock& block = segment.channel(channel);
      status.issued.push_back(block.issued.load(std::memory_order_acquire));
      if (status.failure.empty() && (block.state.load(std::memory_order_acquire) & kFailedBit) != 0) {
        status.failure = std::string(block.reason.data(), ::strnlen(block.reason.data(), block.reason.size()));
      }
    }
    return status;
  }

 private:
  Segment& own() const { return set_->segments[static_cast<size_t>(rank_)]; }

  void write(const RankStatus::Wait& wait) {
    WaitRecord& record = own().head().wait;
    record.version.fetch_add(1);
    record.channel.store(wait.channel);
    record.sequence.store(wait.sequence);
    std::array<char, sizeof(uint64_t) * 32> text{};
    std::memcpy(text.data(), wait.what.data(), std::min(wait.what.size(), text.size() - 1));
    for (size_t i = 0; i < record.text.size(); ++i) {
      uint64_t word = 0;
      std::memcpy(&word, text.data() + i * sizeof(word), sizeof(word));
      record.text[i].store(word);
    }
    record.version.fetch_add(1);
  }

  // A writer that died in the middle leaves an odd version: then the rank shows no wait.
  static std::optional<RankStatus::Wait> read_wait(const WaitRecord& record) {
    for (int attempt = 0; attempt < 100; ++attempt) {
      const uint32_t before = record.version.load();
      RankStatus::Wait wait{.channel = record.channel.load(), .sequence = record.sequence.load()};
      std::array<char, sizeof(uint64_t) * 32> text{};
      for (size_t i = 0; i < record.text.size(); ++i) {
        const uint64_t word = record.text[i].load();
        std::memcpy(text.data() + i * sizeof(word), &word, sizeof(word));
      }
      if (before % 2 == 1 || record.version.load() != before) continue;
      if (wait.channel < 0) return std::nullopt;
      wait.what = std::string(text.data(), ::strnlen(text.data(), text.size()));
      return wait;
    }
    return std::nullopt;
  }

  std::shared_ptr<SegmentSet> set_;
  int rank_;
  std::mutex mutex_;
  int callers_ = 0;
};

}  // namespace

int64_t SegmentLayout::slots_offset() const {
  const int64_t mailboxes = static_cast<int64_t>(num_channels) * size * static_cast<int64_t>(sizeof(Mailbox));
  return round_up(mailboxes_offset(*this) + mailboxes, kPageBytes);
}

int64_t SegmentLayout::mailbox_slots_offset() const { return slots_offset() + num_channels * kRingBytes; }

int64_t SegmentLayout::heap_offset() const {
  const int64_t mailbox_slots = 2 * static_cast<int64_t>(num_channels) * size * kMailboxBytes;
  return round_up(mailbox_slots_offset() + mailbox_slots, memory::kHugePageBytes);
}

int64_t SegmentLayout::total_bytes() const { return heap_offset() + heap_bytes; }

std::shared_ptr<memory::Arena> SegmentSet::arena(int rank, SharedUse use) {
  const Segment& own = segments[static_cast<size_t>(rank)];
  const auto num_uses = static_cast<int64_t>(arenas_.size());
  const int64_t part = own.layout().heap_bytes / num_uses / memory::kHugePageBytes * memory::kHugePageBytes;
  if (part == 0) return nullptr;
  const auto index = static_cast<size_t>(use);
  const std::lock_guard lock(mutex_);
  auto arena = arenas_[index].lock();
  if (arena == nullptr) {
    arena = memory::Arena::create_over(own.heap() + static_cast<int64_t>(index) * part, part, shared_from_this());
    arenas_[index] = arena;
  }
  return arena;
}

void Segment::initialize(uint64_t token) const {
  SegmentHead* head = new (base_) SegmentHead{};
  head->magic = kMagic;
  head->token = token;
  head->size = layout_.size;
  head->num_channels = layout_.num_channels;
  head->wait.channel.store(-1);
  for (int c = 0; c < layout_.num_channels; ++c) {
    new (&channel(c)) ChannelBlock{};
    for (int r = 0; r < layout_.size; ++r) new (&mailbox(c, r)) Mailbox{};
  }
}

ChannelBlock& Segment::channel(int channel) const {
  return reinterpret_cast<ChannelBlock*>(base_ + channels_offset())[channel];
}

char* Segment::slot(int channel, int64_t ring_offset) const {
  return base_ + layout_.slots_offset() + channel * kRingBytes + ring_offset;
}

Mailbox& Segment::mailbox(int channel, int receiver) const {
  return reinterpret_cast<Mailbox*>(base_ + mailboxes_offset(layout_))[channel * layout_.size + receiver];
}

char* Segment::mailbox_slot(int channel, int receiver, uint32_t part) const {
  const int64_t index = 2 * (static_cast<int64_t>(channel) * layout_.size + receiver) + part % 2;
  return base_ + layout_.mailbox_slots_offset() + index * kMailboxBytes;
}

std::shared_ptr<StatusBoard> make_segment_board(std::shared_ptr<SegmentSet> set, int rank) {
  return std::make_shared<SegmentBoard>(std::move(set), rank);
}

}  // namespace hydrofoil::comm::detail
