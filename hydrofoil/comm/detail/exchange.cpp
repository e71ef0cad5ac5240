#include "hydrofoil/comm/detail/exchange.h"

#include <sched.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "hydrofoil/base/clock.h"
#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/detail/dtype.h"
#include "hydrofoil/comm/detail/explain.h"
#include "hydrofoil/comm/detail/futex.h"
#include "hydrofoil/comm/detail/reduce.h"
#include "hydrofoil/comm/detail/text.h"
#include "hydrofoil/memory/alignment.h"

namespace hydrofoil::comm::detail {
namespace {

// Waiting: first with the CPU; then, where the caller waits too, offering it to others between looks, since a core that
// has gone to sleep takes 50 us to wake; then asleep. Who has yielded gets the CPU back later than who is woken, so a
// thread beside one that computes does not yield, and nobody does again once others took long.
constexpr int64_t kSpinNs = 2'000;
constexpr int64_t kYieldNs = 50'000;
constexpr int64_t kSliceNs = 50'000'000;           // how long a lost rank or an abort goes unseen
constexpr int64_t kSharedBytes = 64 * 1024;        // of an input; below, a second step costs more than a copy
constexpr int64_t kSharedChunkBytes = 256 * 1024;  // of an all-reduce in place: what is fetched is in a cache
constexpr int64_t kDirectBytes = 4096;             // up to here one step by everybody beats two steps by parts

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

bool reached(const std::atomic<uint32_t>& value, uint32_t target) {
  return static_cast<int32_t>(value.load() - target) >= 0;
}

void raise_to(Signal& signal, uint32_t value) {
  // Sequentially consistent on both sides: either the waiter sees the value, or this rank sees the waiter.
  signal.value.store(value);
  if (signal.waiters.load() != 0) futex_wake(signal.value);
}

OpHeader make_header(const Operation& operation) {
  OpHeader header{};
  header.kind = static_cast<uint8_t>(operation.kind);
  header.reduce = static_cast<uint8_t>(operation.reduce);
  header.dtype = static_cast<int8_t>(operation.dtype());
  header.peer = operation.peer;
  header.numel = operation.numel();
  header.signature = operation.info.signature;
  header.shared_offset = -1;
  std::memcpy(header.unit.data(), operation.info.unit.data(),
              std::min(operation.info.unit.size(), header.unit.size() - 1));
  return header;
}

bool same(const OpHeader& a, const OpHeader& b) {
  return a.kind == b.kind && a.reduce == b.reduce && a.dtype == b.dtype && a.peer == b.peer && a.numel == b.numel &&
         a.signature == b.signature &&
         (a.kind == static_cast<uint8_t>(OpKind::kBroadcast) || (a.shared_offset < 0) == (b.shared_offset < 0));
}

std::string describe_header(const OpHeader& header) {
  const Operation operation{
      .kind = static_cast<OpKind>(header.kind),
      .reduce = static_cast<ReduceOp>(header.reduce),
      .peer = header.peer,
      .info = {.unit = std::string(header.unit.data(), ::strnlen(header.unit.data(), header.unit.size()))}};
  return describe(operation, header.numel, static_cast<at::ScalarType>(header.dtype));
}

char* data_of(const at::Tensor& tensor) { return static_cast<char*>(tensor.data_ptr()); }

void copy(char* to, const char* from, int64_t bytes) {
  if (bytes > 0 && to != from) std::memcpy(to, from, static_cast<size_t>(bytes));
}

int64_t bytes_of(const Operation& operation) { return element_bytes(element_type(operation.dtype())); }

}  // namespace

Exchange::Exchange(std::shared_ptr<SegmentSet> set, std::shared_ptr<StatusBoard> board, ExchangeOptions options)
    : set_(std::move(set)),
      board_(std::move(board)),
      options_(std::move(options)),
      size_(static_cast<int>(set_->segments.size())),
      sent_(static_cast<size_t>(size_)),
      received_(static_cast<size_t>(size_)),
      sources_(static_cast<size_t>(size_)) {}

void Exchange::run(const Operation& operation, const CallControl& control) {
  Call call{.operation = operation, .control = control};
  switch (operation.kind) {
    case OpKind::kAllReduce:
      return all_reduce(call);
    case OpKind::kReduceScatter:
      return reduce_scatter(call);
    case OpKind::kAllGather:
      return all_gather(call);
    case OpKind::kBroadcast:
      return broadcast(call);
    case OpKind::kAllToAll:
      return all_to_all(call);
    case OpKind::kSend:
      return send(call);
    case OpKind::kRecv:
      return recv(call);
    case OpKind::kBarrier:
      return meet(call);
  }
}

void Exchange::leave(const std::string& reason) {
  ChannelBlock& own = block(rank());
  if (!reason.empty() && (own.state.load() & kFailedBit) == 0) {
    std::memcpy(own.reason.data(), reason.data(), std::min(reason.size(), own.reason.size() - 1));
    own.state.fetch_or(kFailedBit);
  }
  if (reason.empty()) own.state.fetch_or(kLeftBit);
  futex_wake(own.posted.value);
  for (int peer = 0; peer < size_; ++peer) {
    futex_wake(segment(rank()).mailbox(options_.channel, peer).posted.value);
    futex_wake(segment(peer).mailbox(options_.channel, rank()).taken.value);
  }
}

int64_t Exchange::shared_offset(const Operation& operation) const {
  const bool reads_inputs = operation.kind == OpKind::kAllReduce || operation.kind == OpKind::kReduceScatter ||
                            operation.kind == OpKind::kAllGather ||
                            (operation.kind == OpKind::kBroadcast && operation.peer == rank());
  if (!reads_inputs) return -1;
  const at::Tensor& input = operation.input.defined() ? operation.input : operation.output;
  const int64_t bytes = input.numel() * bytes_of(operation);
  return bytes >= kSharedBytes ? heap_offset(data_of(input), bytes) : -1;
}

int64_t Exchange::heap_offset(const void* address, int64_t num_bytes) const {
  const Segment& own = segment(rank());
  const auto offset = reinterpret_cast<intptr_t>(address) - reinterpret_cast<intptr_t>(own.heap());
  return offset >= 0 && offset + num_bytes <= own.layout().heap_bytes ? offset : -1;
}

const char* Exchange::shared_input(int peer) const {
  return segment(peer).heap() + block(peer).headers[(step_ - 1) % 2].shared_offset;
}

// Of each chunk, rank r reduces part r in its place, then everybody fetches the other parts while they lie in the
// caches. A rank reduces the next chunk before it waits for the peers' parts of this one.
void Exchange::all_reduce_shared(Call& call) {
  const int64_t element = bytes_of(call.operation);
  const int64_t numel = call.operation.output.numel();
  const int64_t chunk = kSharedChunkBytes / element;
  char* data = data_of(call.operation.output);
  const auto begin_of = [&](int64_t chunk_begin, int part) {
    return (chunk_begin + std::min(chunk, numel - chunk_begin) * part / size_) * element;
  };
  meet(call);
  std::vector<const char*> inputs;
  for (int peer = 0; peer < size_; ++peer) inputs.push_back(shared_input(peer));
  inputs[static_cast<size_t>(rank())] = data;
  const auto reduce_own = [&](int64_t chunk_begin) {
    const int64_t begin = begin_of(chunk_begin, rank());
    for (int peer = 0; peer < size_; ++peer) sources_[static_cast<size_t>(peer)] = inputs[peer] + begin;
    reduce(call, data + begin, (begin_of(chunk_begin, rank() + 1) - begin) / element);
  };
  reduce_own(0);
  for (int64_t chunk_begin = 0; chunk_begin < numel; chunk_begin += chunk) {
    announce(call);
    if (chunk_begin + chunk < numel) reduce_own(chunk_begin + chunk);
    await(call);
    for (int i = 1; i < size_; ++i) {
      const int peer = (rank() + i) % size_;  // not all from the same one
      const int64_t begin = begin_of(chunk_begin, peer);
      copy(data + begin, inputs[peer] + begin, begin_of(chunk_begin, peer + 1) - begin);
    }
  }
  meet(call);
}

void Exchange::reduce_scatter_shared(Call& call) {
  const int64_t numel = call.operation.output.numel();
  const int64_t begin = rank() * numel * bytes_of(call.operation);
  meet(call);
  for (int peer = 0; peer < size_; ++peer) sources_[static_cast<size_t>(peer)] = shared_input(peer) + begin;
  sources_[static_cast<size_t>(rank())] = data_of(call.operation.input) + begin;
  reduce(call, call.operation.output.data_ptr(), numel);
  meet(call);
}

void Exchange::all_gather_shared(Call& call) {
  const int64_t bytes = call.operation.input.numel() * bytes_of(call.operation);
  char* output = data_of(call.operation.output);
  meet(call);
  for (int i = 1; i < size_; ++i) {
    const int peer = (rank() + i) % size_;  // not all from the same one
    copy(output + peer * bytes, shared_input(peer), bytes);
  }
  copy(output + rank() * bytes, data_of(call.operation.input), bytes);
  meet(call);
}

void Exchange::all_reduce(Call& call) {
  if (shared_offset(call.operation) >= 0) return all_reduce_shared(call);
  const int64_t element = bytes_of(call.operation);
  const int64_t chunk = kSlotBytes / element;
  const int64_t numel = call.operation.output.numel();
  char* data = data_of(call.operation.output);
  if (numel == 0) return meet(call);
  for (int64_t begin = 0; begin < numel; begin += chunk) {
    const int64_t count = std::min(chunk, numel - begin);
    if (size_ == 2 || count * element <= kDirectBytes) {
      all_reduce_chunk_direct(call, data + begin * element, count);
    } else {
      all_reduce_chunk_in_parts(call, data + begin * element, count);
    }
  }
}

// Everybody reduces everything.
void Exchange::all_reduce_chunk_direct(Call& call, char* data, int64_t numel) {
  const int64_t bytes = numel * bytes_of(call.operation);
  copy(own_slot(bytes), data, bytes);
  meet(call);
  for (int peer = 0; peer < size_; ++peer) sources_[static_cast<size_t>(peer)] = peer_slot(peer);
  sources_[static_cast<size_t>(rank())] = data;
  reduce(call, data, numel);
}

// Rank r reduces part r and hands the result out.
void Exchange::all_reduce_chunk_in_parts(Call& call, char* data, int64_t numel) {
  const int64_t element = bytes_of(call.operation);
  const auto begin_of = [&](int part) { return numel * part / size_ * element; };
  copy(own_slot(numel * element), data, numel * element);
  meet(call);
  const int64_t begin = begin_of(rank());
  const int64_t bytes = begin_of(rank() + 1) - begin;
  for (int peer = 0; peer < size_; ++peer) sources_[static_cast<size_t>(peer)] = peer_slot(peer) + begin;
  reduce(call, data + begin, bytes / element);
  copy(own_slot(numel * element) + begin, data + begin, bytes);
  meet(call);
  for (int peer = 0; peer < size_; ++peer) {
    const int64_t part = begin_of(peer);
    if (peer != rank()) copy(data + part, peer_slot(peer) + part, begin_of(peer + 1) - part);
  }
}

void Exchange::reduce_scatter(Call& call) {
  if (shared_offset(call.operation) >= 0) return reduce_scatter_shared(call);
  const int64_t element = bytes_of(call.operation);
  const int64_t chunk = kSlotBytes / element / size_;
  const int64_t numel = call.operation.output.numel();
  const char* input = data_of(call.operation.input);
  char* output = data_of(call.operation.output);
  const auto output_element = static_cast<int64_t>(call.operation.output.element_size());
  if (numel == 0) return meet(call);
  for (int64_t begin = 0; begin < numel; begin += chunk) {
    const int64_t count = std::min(chunk, numel - begin);
    char* slot = own_slot(size_ * count * element);
    for (int peer = 0; peer < size_; ++peer) {
      if (peer == rank()) continue;
      copy(slot + peer * count * element, input + (peer * numel + begin) * element, count * element);
    }
    meet(call);
    for (int peer = 0; peer < size_; ++peer) {
      sources_[static_cast<size_t>(peer)] = peer_slot(peer) + rank() * count * element;
    }
    sources_[static_cast<size_t>(rank())] = input + (rank() * numel + begin) * element;
    reduce(call, output + begin * output_element, count);
  }
}

void Exchange::all_gather(Call& call) {
  if (shared_offset(call.operation) >= 0) return all_gather_shared(call);
  const int64_t bytes = call.operation.input.numel() * bytes_of(call.operation);
  const char* input = data_of(call.operation.input);
  char* output = data_of(call.operation.output);
  if (bytes == 0) return meet(call);
  for (int64_t begin = 0; begin < bytes; begin += kSlotBytes) {
    const int64_t count = std::min(kSlotBytes, bytes - begin);
    copy(own_slot(count), input + begin, count);
    meet(call);
    for (int peer = 0; peer < size_; ++peer) {
      if (peer != rank()) copy(output + peer * bytes + begin, peer_slot(peer), count);
    }
    copy(output + rank() * bytes + begin, input + begin, count);
  }
}

void Exchange::broadcast(Call& call) {
  const int64_t bytes = call.operation.output.numel() * bytes_of(call.operation);
  const int root = call.operation.peer;
  char* data = data_of(call.operation.output);
  if (bytes == 0) return meet(call);
  const bool is_shared_here = shared_offset(call.operation) >= 0;
  for (int64_t begin = 0; begin < bytes; begin += kSlotBytes) {
    const int64_t count = std::min(kSlotBytes, bytes - begin);
    char* slot = own_slot(count);
    if (rank() == root && !is_shared_here) copy(slot, data + begin, count);
    meet(call);
    // Only the root knows before the first step whether it can be read in place.
    if (begin == 0 && block(root).headers[(step_ - 1) % 2].shared_offset >= 0) {
      if (rank() != root) copy(data, shared_input(root), bytes);
      return meet(call);
    }
    if (rank() != root) copy(data + begin, peer_slot(root), count);
  }
}

void Exchange::all_to_all(Call& call) {
  const int64_t bytes = call.operation.input.numel() / size_ * bytes_of(call.operation);
  const int64_t chunk = kSlotBytes / size_;
  const char* input = data_of(call.operation.input);
  char* output = data_of(call.operation.output);
  if (bytes == 0) return meet(call);
  for (int64_t begin = 0; begin < bytes; begin += chunk) {
    const int64_t count = std::min(chunk, bytes - begin);
    char* slot = own_slot(size_ * count);
    for (int peer = 0; peer < size_; ++peer) {
      if (peer != rank()) copy(slot + peer * count, input + peer * bytes + begin, count);
    }
    meet(call);
    for (int peer = 0; peer < size_; ++peer) {
      const char* from = peer == rank() ? input + peer * bytes + begin : peer_slot(peer) + rank() * count;
      copy(output + peer * bytes + begin, from, count);
    }
  }
}

void Exchange::send(Call& call) {
  const int peer = call.operation.peer;
  const int64_t bytes = call.operation.input.numel() * bytes_of(call.operation);
  const char* data = data_of(call.operation.input);
  const Segment& own = segment(rank());
  Mailbox& box = own.mailbox(options_.channel, peer);
  uint32_t& part = sent_[static_cast<size_t>(peer)];
  int64_t begin = 0;
  do {
    ++part;
    if (part > 2) wait_for(call, peer, box.taken, part - 2);
    if (begin == 0) box.headers[part % 2] = make_header(call.operation);
    const int64_t count = std::min(kMailboxBytes, bytes - begin);
    copy(own.mailbox_slot(options_.channel, peer, part), data + begin, count);
    raise_to(box.posted, part);
    begin += count;
  } while (begin < bytes);
}

void Exchange::recv(Call& call) {
  const int peer = call.operation.peer;
  const int64_t bytes = call.operation.output.numel() * bytes_of(call.operation);
  char* data = data_of(call.operation.output);
  const Segment& from = segment(peer);
  Mailbox& box = from.mailbox(options_.channel, rank());
  uint32_t& part = received_[static_cast<size_t>(peer)];
  int64_t begin = 0;
  do {
    ++part;
    wait_for(call, peer, box.posted, part);
    if (begin == 0) {
      const OpHeader& sent = box.headers[part % 2];
      const OpHeader wanted = make_header(call.operation);
      if (sent.numel != wanted.numel || sent.dtype != wanted.dtype || sent.signature != wanted.signature) {
        throw CommError(concat(context(call), ": rank ", peer, " sent something else: ", describe_header(sent)));
      }
    }
    const int64_t count = std::min(kMailboxBytes, bytes - begin);
    copy(data + begin, from.mailbox_slot(options_.channel, rank(), part), count);
    raise_to(box.taken, part);
    begin += count;
  } while (begin < bytes);
}

char* Exchange::own_slot(int64_t num_bytes) {
  slot_bytes_ = num_bytes;
  return segment(rank()).slot(options_.channel, slot_);
}

// After meet(), which has moved on to the next step.
const char* Exchange::peer_slot(int peer) const { return segment(peer).slot(options_.channel, last_slot_); }

void Exchange::meet(Call& call) {
  announce(call);
  await(call);
}

void Exchange::announce(const Call& call) {
  ChannelBlock& own = block(rank());
  if (!call.checked) {
    own.headers[step_ % 2] = make_header(call.operation);
    own.headers[step_ % 2].shared_offset = shared_offset(call.operation);
  }
  raise_to(own.posted, step_);
}

void Exchange::await(Call& call) {
  for (int peer = 0; peer < size_; ++peer) {
    if (peer != rank()) wait_for(call, peer, block(peer).posted, step_);
  }
  if (!call.checked) check_agreement(call);
  call.checked = true;
  ++step_;
  last_slot_ = slot_;
  slot_ += memory::round_up(std::exchange(slot_bytes_, 0), memory::kPageBytes);
  if (slot_ + kSlotBytes > kRingBytes) slot_ = 0;
}

void Exchange::check_agreement(const Call& call) {
  const OpHeader& own = block(rank()).headers[step_ % 2];
  bool agreed = true;
  for (int peer = 0; peer < size_; ++peer) agreed = agreed && same(own, block(peer).headers[step_ % 2]);
  if (agreed) return;
  std::string text =
      concat("[comm] the ranks of group ", options_.group, " disagree at operation ", call.operation.sequence, ":");
  for (int peer = 0; peer < size_; ++peer) {
    const OpHeader& header = block(peer).headers[step_ % 2];
    text += concat(peer == 0 ? " " : "; ", "rank ", peer, ": ", describe_header(header));
  }
  throw CommError(text + '.' + compare_histories(call));
}

// Every rank sees a disagreement, so that one step more finds all of them.
std::string Exchange::compare_histories(const Call& call) {
  ++step_;
  const std::string own = pack_history(call.operation.info.history.get());
  slot_ = 0;  // the ranks may have been to use differently much
  std::memcpy(own_slot(kSlotBytes), own.c_str(), own.size() + 1);
  raise_to(block(rank()).posted, step_);
  std::vector<std::string> packed;
  try {
    for (int peer = 0; peer < size_; ++peer) {
      if (peer != rank()) wait_for(call, peer, block(peer).posted, step_);
      packed.emplace_back(segment(peer).slot(options_.channel, slot_));
    }
  } catch (const CommError&) {  // NOLINT(bugprone-empty-catch): a peer has gone; what is known is said without it
    return "";
  }
  return first_difference(packed);
}

void Exchange::reduce(const Call& call, void* out, int64_t numel) {
  const Operation& operation = call.operation;
  reduce_buffers({.type = element_type(operation.dtype()),
                  .widen = operation.output.scalar_type() != operation.dtype(),
                  .reduction = operation.reduce == ReduceOp::kMax ? Reduction::kMax : Reduction::kSum,
                  .sources = sources_.data(),
                  .num_sources = size_,
                  .out = out,
                  .numel = numel,
                  .scale = operation.reduce == ReduceOp::kAvg ? 1.0F / static_cast<float>(size_) : 1.0F});
}

void Exchange::wait_for(const Call& call, int peer, Signal& signal, uint32_t target) const {
  if (reached(signal.value, target)) return;
  const int64_t start = monotonic_ns();
  const int64_t patience = call.operation.info.caller_waits ? kYieldNs : kSpinNs;
  for (int64_t waited = 0; waited < patience; waited = monotonic_ns() - start) {
    for (int i = 0; i < 8; ++i) {
      pause_cpu();
      if (reached(signal.value, target)) return;
    }
    if (waited >= kSpinNs) ::sched_yield();
  }
  signal.waiters.fetch_add(1);
  try {
    while (true) {
      const uint32_t seen = signal.value.load();
      if (static_cast<int32_t>(seen - target) >= 0) break;
      futex_wait(signal.value, seen, kSliceNs);
      throw_if_in_trouble(call, peer, signal, target);
    }
  } catch (...) {
    signal.waiters.fetch_sub(1);
    throw;
  }
  signal.waiters.fetch_sub(1);
}

void Exchange::throw_if_in_trouble(const Call& call, int peer, const Signal& signal, uint32_t target) const {
  const uint32_t state = block(peer).state.load();
  const bool ended = set_->ended(peer);
  // Only now: what the peer did before it left counts.
  if (reached(signal.value, target)) return;
  call.control.throw_if_aborted();
  if (state != 0 || ended) {
    const std::string failure = board_->read(peer)->failure;
    const char* what = " has failed";
    if (ended) what = " has died (its process ended)";
    if ((state & kLeftBit) != 0) what = " has left the group";
    throw CommError(concat(context(call), ": rank ", peer, what, failure.empty() ? "" : ": ", failure));
  }
  if (call.control.expired()) throw_deadline(call);
}

void Exchange::throw_deadline(const Call& call) const {
  std::string missing;
  if (is_point_to_point(call.operation.kind)) {
    missing = concat("rank ", call.operation.peer);
  } else {
    missing = missing_ranks(*board_, options_.channel, call.operation.sequence);
    for (int peer = 0; missing.empty() && peer < size_; ++peer) {
      if (!reached(block(peer).posted.value, step_))
        missing = concat("rank ", peer, " (has called it but stands still)");
    }
  }
  throw CommError(
      concat(context(call), ": deadline of ", call.control.timeout().count(), " ms passed; did not arrive: ", missing));
}

std::string Exchange::context(const Call& call) const {
  return concat("[comm] ", describe(call.operation), " in group ", options_.group, " on rank ", rank());
}

}  // namespace hydrofoil::comm::detail
