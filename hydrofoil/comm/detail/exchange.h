#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "hydrofoil/comm/backend.h"
#include "hydrofoil/comm/detail/segment.h"
#include "hydrofoil/comm/status_board.h"

namespace hydrofoil::comm::detail {

struct ExchangeOptions {
  std::string backend_name;  // local, shm
  std::string group;         // name in errors
  int rank = 0;
  int channel = 0;
};

// Collectives over segments of memory that all ranks map (threads or processes).
//
// NOTE [Exchange steps]: every collective is a sequence of steps. In a step each rank fills its slot, raises its
// `posted` counter, waits for the counters of all others, then reads their slots. A slot never overlaps that of the
// step before: a rank that fills the slot of step s has seen everybody's `posted` reach s - 1, and nobody raises it to
// s - 1 before having read the slots of step s - 2, so one counter suffices. The first step of a collective carries a
// header by which every rank checks that all want the same. Inputs that lie in the ranks' heaps are read where they
// are: the first step says that they are ready, the last that all have read them.
//
// NOTE [Ring of slots]: to write lines that a peer still has in its L2 costs four times as much as to read them there
// (on an AMD EPYC 9 GB/s against 40). So slots follow each other through a ring that is larger than an L2. All ranks
// use as much of it in each step, hence have their slots at the same place.
class Exchange : public Backend {
 public:
  Exchange(std::shared_ptr<SegmentSet> set, std::shared_ptr<StatusBoard> board, ExchangeOptions options);

  int rank() const override { return options_.rank; }
  int size() const override { return size_; }
  std::string name() const override { return options_.backend_name; }
  void run(const Operation& operation, const CallControl& control) override;
  void leave(const std::string& reason) override;
  std::shared_ptr<StatusBoard> board() const override { return board_; }
  bool runs_on_callers() const override { return true; }
  int channel() const override { return options_.channel; }
  std::shared_ptr<memory::Arena> shared_arena(SharedUse use) override { return set_->arena(rank(), use); }
  bool widens_sums() const override { return true; }
  int64_t heap_offset(const void* address, int64_t num_bytes) const override;
  bool map_private(int rank, int64_t heap_offset, int64_t num_bytes, char* address) override {
    return set_->map_private(rank, heap_offset, num_bytes, address);
  }

 private:
  struct Call {
    const Operation& operation;
    const CallControl& control;
    bool checked = false;  // the first step has compared the headers
  };

  // Of an input that lies in the own heap and is large enough to be read from there, else -1.
  [[nodiscard]] int64_t shared_offset(const Operation& operation) const;
  // The peer's input in its heap, after the meet() that opened a collective of shared inputs.
  [[nodiscard]] const char* shared_input(int peer) const;
  void all_reduce_shared(Call& call);
  void reduce_scatter_shared(Call& call);
  void all_gather_shared(Call& call);
  void all_reduce(Call& call);
  void all_reduce_chunk_direct(Call& call, char* data, int64_t numel);
  void all_reduce_chunk_in_parts(Call& call, char* data, int64_t numel);
  void reduce_scatter(Call& call);
  void all_gather(Call& call);
  void broadcast(Call& call);
  void all_to_all(Call& call);
  void send(Call& call);
  void recv(Call& call);

  // Of this step; every rank calls it, with the same size.
  char* own_slot(int64_t num_bytes);
  const char* peer_slot(int peer) const;
  // The two halves of a step, and both.
  void announce(const Call& call);
  void await(Call& call);
  void meet(Call& call);
  void check_agreement(const Call& call);
  [[nodiscard]] std::string compare_histories(const Call& call);
  void reduce(const Call& call, void* out, int64_t numel);
  void wait_for(const Call& call, int peer, Signal& signal, uint32_t target) const;
  void throw_if_in_trouble(const Call& call, int peer, const Signal& signal, uint32_t target) const;
  [[noreturn]] void throw_deadline(const Call& call) const;
  [[nodiscard]] Segment& segment(int rank) const { return set_->segments[static_cast<size_t>(rank)]; }
  [[nodiscard]] ChannelBlock& block(int rank) const { return segment(rank).channel(options_.channel); }
  [[nodiscard]] std::string context(const Call& call) const;

  std::shared_ptr<SegmentSet> set_;
  std::shared_ptr<StatusBoard> board_;
  ExchangeOptions options_;
  int size_;
  uint32_t step_ = 1;                      // step whose slot is filled next
  int64_t slot_ = 0, last_slot_ = 0;       // where in the ring it is, and that of the step before
  int64_t slot_bytes_ = 0;                 // taken by this step
  std::vector<uint32_t> sent_, received_;  // parts, per peer
  std::vector<const void*> sources_;       // of the reduction at hand
};

}  // namespace hydrofoil::comm::detail
