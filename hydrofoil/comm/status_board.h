#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace hydrofoil::comm {

// What one rank publishes about itself.
struct RankStatus {
  struct Wait {
    int channel = 0;
    uint64_t sequence = 0;  // collective that the rank's caller waits for
    std::string what;       // its describe()
  };
  std::vector<uint64_t> issued;  // per channel: number of collectives that the rank has issued
  std::optional<Wait> blocked;   // set once a caller has waited for a second
  std::string failure;           // why the rank has given up; empty while all is well
};

// The one mechanism that explains hangs: every rank writes its own RankStatus and reads the others'. Shared by all
// channels over the same ranks. Thread-safe. Nothing here blocks on another rank.
class StatusBoard {
 public:
  virtual ~StatusBoard() = default;

  [[nodiscard]] virtual int rank() const = 0;
  [[nodiscard]] virtual int size() const = 0;

  // Called at every collective; costs one store to memory.
  virtual void issue(int channel, uint64_t sequence) = 0;
  // A caller has waited long for this. Each call has its unblock(). While several callers of a rank wait, none is
  // shown.
  virtual void block(const RankStatus::Wait& wait) = 0;
  virtual void unblock() = 0;
  // Makes what this rank has issued visible where that takes more than a store to memory.
  virtual void post() = 0;
  // nullopt where the rank has posted nothing yet.
  [[nodiscard]] virtual std::optional<RankStatus> read(int rank) = 0;
};

// Ranks other than the board's own that have not issued collective `sequence` of `channel`, each with what it does
// instead as far as it is known: "rank 1 (waits for all_gather of unit a (numel 8, float32) on channel 1)".
// Empty where all have.
[[nodiscard]] std::string missing_ranks(StatusBoard& board, int channel, uint64_t sequence);

// Set of ranks of which each waits for a collective that another one of the set has not issued, with this rank in it;
// such ranks never come out. Returns the text of the error, or nullopt where there is none. With one waiting thread a
// rank this is exact: what a rank has not issued while its caller waits, it will not issue.
[[nodiscard]] std::optional<std::string> find_cross_wait(StatusBoard& board);

}  // namespace hydrofoil::comm
