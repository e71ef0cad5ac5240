#pragma once

#include <c10/util/intrusive_ptr.h>

#include <memory>
#include <string>

#include "hydrofoil/comm/status_board.h"

namespace c10d {
class Store;
}

namespace hydrofoil::comm {

// StatusBoard of ranks that share nothing but a c10d::Store. Nothing is written before a rank has waited for a second,
// so a run without hangs costs no traffic. All ranks give the same `prefix`, which no other board of the store has had.
// A store that cannot be reached any more makes the peers unknown; it is no error of its own.
class StoreBoard : public StatusBoard {
 public:
  StoreBoard(c10::intrusive_ptr<c10d::Store> store, std::string prefix, int rank, int size, int num_channels);
  ~StoreBoard() override;

  int rank() const override;
  int size() const override;
  void issue(int channel, uint64_t sequence) override;
  void block(const RankStatus::Wait& wait) override;
  void unblock() override;
  void post() override;
  std::optional<RankStatus> read(int rank) override;
  // Posts that this rank has given up.
  void fail(const std::string& reason);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The record of a rank as it is stored. decode_status gives nullopt for anything that encode_status cannot have
// written.
[[nodiscard]] std::string encode_status(const RankStatus& status);
[[nodiscard]] std::optional<RankStatus> decode_status(const std::string& text);

}  // namespace hydrofoil::comm
