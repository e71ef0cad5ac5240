#include "hydrofoil/comm/joining_group.h"

#include <ATen/ops/empty.h>

#include <string>
#include <utility>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/backend.h"

namespace hydrofoil::comm {
namespace {

// NOTE [Joining]
// Every call opens rounds. In a round the ranks tell each other what they wait for, and all come to the same decision:
// - Some want joinable collectives: the one with the least place runs (of the lowest rank, among equals). Whoever waits
//   for it is served and goes on computing; the others have joined it and open the next round.
// - Nobody does, but some pause: these return, and the others open the next round.
// - All are at a collective of all ranks: each runs its own. Where these differ, `inner` names them as on any Group.
// Every rank that waits is in a round, so the ranks never wait for each other in a circle: a round lacks only ranks
// that compute, and these end in a call too. A rank that makes none within the deadline, or has gone, ends the round of
// the others with the errors of `inner`.
enum WishKind : int64_t { kSome, kPauses, kAll };

struct Wish {
  int64_t kind = kAll;
  int64_t id = 0;
  int64_t place = 0;
};
constexpr int64_t kWishNumel = 3;
constexpr uint64_t kWishSignature = 0x6a6f696e;  // differs from what callers use

Wish wish_of(const Operation& operation) {
  const auto& joinable = operation.info.joinable;
  if (!joinable) return {};
  const bool pauses = operation.kind == OpKind::kBarrier && joinable->id == Joinable::kPause;
  HYDROFOIL_CHECK_ARG(pauses || (operation.kind == OpKind::kAllGather && joinable->id >= 0), "Group", "joinable: got ",
                      op_kind_name(operation.kind), " with id ", joinable->id,
                      ", expected all_gather with an id from 0, or a barrier with kPause");
  return {pauses ? kPauses : kSome, joinable->id, joinable->place};
}

class JoiningBackend : public Backend {
 public:
  JoiningBackend(Group inner, Contribution contribute) : inner_(std::move(inner)), contribute_(std::move(contribute)) {}

  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  std::string name() const override { return inner_.backend_name(); }
  bool supports(c10::DeviceType /*device*/) const override { return true; }  // inner_ checks
  bool runs_inline() const override { return true; }
  std::shared_ptr<memory::Arena> shared_arena(SharedUse use) override { return inner_.shared_arena(use); }
  void leave(const std::string& /*reason*/) override {}  // inner_ does, at its own failure and its end

  void run(const Operation& operation, const CallControl& /*control*/) override {
    const Wish own = wish_of(operation);
    while (true) {
      const std::vector<Wish> wishes = share(own, operation);
      const Wish* next = nullptr;
      bool some_pause = false;
      for (const Wish& wish : wishes) {
        if (wish.kind == kSome && (next == nullptr || wish.place < next->place)) next = &wish;
        some_pause = some_pause || wish.kind == kPauses;
      }
      if (next == nullptr) {
        if (own.kind == kPauses) return;
        if (some_pause) continue;
        return execute(operation);
      }
      if (own.kind == kSome && own.id == next->id) return execute(operation);
      join(next->id);
    }
  }

 private:
  std::vector<Wish> share(const Wish& own, const Operation& operation) const {
    const at::Tensor mine = at::empty({kWishNumel}, at::kLong);
    const at::Tensor all = at::empty({size() * kWishNumel}, at::kLong);
    auto* words = mine.data_ptr<int64_t>();
    words[0] = own.kind;
    words[1] = own.id;
    words[2] = own.place;
    OpInfo info{
        .unit = operation.info.unit + " (what each rank waits for)", .signature = kWishSignature, .caller_waits = true};
    inner_.all_gather(mine, all, std::move(info)).wait();
    std::vector<Wish> wishes;
    words = all.data_ptr<int64_t>();
    for (int64_t rank = 0; rank < size(); ++rank, words += kWishNumel) wishes.push_back({words[0], words[1], words[2]});
    return wishes;
  }

  void join(int64_t id) const {
    const at::Tensor input = contribute_(id);
    const at::Tensor output = at::empty({size() * input.numel()}, input.options());
    OpInfo info{.unit = "joined", .signature = kWishSignature + 1 + static_cast<uint64_t>(id), .caller_waits = true};
    inner_.all_gather(input, output, std::move(info)).wait();
  }

  void execute(const Operation& operation) const {
    OpInfo info = operation.info;
    info.on_end = nullptr;  // the outer Group calls it
    info.caller_waits = true;
    if (info.joinable) info.signature = kWishSignature + 1 + static_cast<uint64_t>(info.joinable->id);
    switch (operation.kind) {
      case OpKind::kAllReduce:
        return inner_.all_reduce(operation.output, operation.reduce, std::move(info)).wait();
      case OpKind::kReduceScatter:
        return inner_.reduce_scatter(operation.input, operation.output, operation.reduce, std::move(info)).wait();
      case OpKind::kAllGather:
        return inner_.all_gather(operation.input, operation.output, std::move(info)).wait();
      case OpKind::kBroadcast:
        return inner_.broadcast(operation.output, operation.peer, std::move(info)).wait();
      case OpKind::kAllToAll:
        return inner_.all_to_all(operation.input, operation.output, std::move(info)).wait();
      case OpKind::kBarrier:
        return inner_.barrier(std::move(info));
      case OpKind::kSend:
      case OpKind::kRecv:
        HYDROFOIL_CHECK_ARG(false, "Group", "send and recv are not for a joining group");
    }
  }

  Group inner_;
  Contribution contribute_;
};

}  // namespace

Group make_joining_group(Group inner, Contribution contribute) {
  HYDROFOIL_CHECK_ARG(contribute != nullptr, "make_joining_group", "contribute is null");
  const std::string name = inner.name();
  return {std::make_unique<JoiningBackend>(std::move(inner), std::move(contribute)), {.name = name}};
}

}  // namespace hydrofoil::comm
