#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "hydrofoil/comm/group.h"
#include "hydrofoil/comm/observer.h"

namespace hydrofoil::comm {

struct CommLogOptions {
  bool verbose = false;          // log each operation at its end
  bool by_unit = false;          // a row for each unit too, not for each operation and message size alone
  std::vector<std::string> ops;  // the operations that are counted, as op_kind_name() names them; empty: all
};

// What was counted of one operation with one message size.
struct CommLogRow {
  std::string op;    // op_kind_name(), or that of a call which Groups do not have ("gather")
  std::string unit;  // "" unless CommLogOptions::by_unit; of a counted call what the caller named it
  int64_t message_bytes = 0;
  int group_size = 1;
  int64_t count = 0;
  double total_s = 0.0;
  std::vector<double> waited_s;  // see add_stragglers; empty before

  [[nodiscard]] double average_s() const { return count == 0 ? 0.0 : total_s / static_cast<double>(count); }
  // As nccl-tests defines them (doc/PERFORMANCE.md there): message bytes / average time; and that times the share of
  // the message that a link must carry, whatever the algorithm. 0 for a barrier.
  [[nodiscard]] double algorithm_bytes_per_s() const;
  [[nodiscard]] double bus_bytes_per_s() const { return algorithm_bytes_per_s() * bus_factor(op, group_size); }

  // 2 (n - 1) / n for an all_reduce, (n - 1) / n where each rank has a slice of the message, else 1.
  [[nodiscard]] static double bus_factor(std::string_view op, int group_size);
};

// Counts the operations of the Groups that it observes, and the calls that it is told of. Thread-safe.
class CommLog : public OperationObserver {
 public:
  explicit CommLog(CommLogOptions options = {}) : options_(std::move(options)) {}

  void on_operation(const EndedOperation& operation) override;
  // Whether CommLogOptions::ops has it.
  [[nodiscard]] bool counts(std::string_view op) const;
  // A call of anybody's: `unit` makes the row beside `op`, whatever by_unit says.
  void count(std::string_view op, std::string_view unit, int64_t message_bytes, int group_size, double seconds);
  [[nodiscard]] const CommLogOptions& options() const { return options_; }
  // By operation, size and unit, in the same order on every rank.
  [[nodiscard]] std::vector<CommLogRow> rows() const;
  // The same with CommLogRow::waited_s: for each rank of `group`, the seconds that it was longer in these operations
  // than the rank that came last to each, of the latest kKept of each row. Collective; is not counted itself.
  //
  // Throws CommError that names the first row that differs where the ranks have not run the same operations.
  [[nodiscard]] std::vector<CommLogRow> rows_with_stragglers(const Group& group) const;
  void clear();

  static constexpr int64_t kKept = 4096;

 private:
  using Key = std::tuple<std::string, int64_t, std::string, int>;
  struct Entry {
    int64_t count = 0;
    double total_s = 0.0;
    std::vector<float> latest_s;  // a ring of kKept
  };

  void add(Key key, std::string_view unit, double seconds);

  CommLogOptions options_;
  mutable std::mutex mutex_;
  mutable bool paused_ = false;
  std::map<Key, Entry> entries_;
};

// A table: operation, message size, count, latencies, bandwidths (10^9 bytes/s), and each rank's wait where known.
[[nodiscard]] std::string to_text(const std::vector<CommLogRow>& rows);

}  // namespace hydrofoil::comm
