#include "hydrofoil/comm/comm_log.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <cstdio>

#include "hydrofoil/base/log.h"
#include "hydrofoil/comm/agree.h"
#include "hydrofoil/comm/detail/text.h"

namespace hydrofoil::comm {
namespace {

using detail::concat;

template <typename... Args>
std::string format(const char* pattern, Args... args) {
  std::array<char, 256> text{};
  std::snprintf(text.data(), text.size(), pattern, args...);
  return text.data();
}

std::string size_text(int64_t bytes) {
  constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1024.0 && unit + 1 < kUnits.size(); ++unit) value /= 1024.0;
  return unit == 0 ? concat(bytes, " B") : format("%.2f %s", value, kUnits[unit]);
}

}  // namespace

double CommLogRow::bus_factor(std::string_view op, int group_size) {
  const double n = group_size;
  if (op == "all_reduce") return 2.0 * (n - 1.0) / n;
  for (const std::string_view sliced : {"reduce_scatter", "all_gather", "all_to_all", "gather", "scatter"}) {
    if (op == sliced) return (n - 1.0) / n;
  }
  return 1.0;
}

double CommLogRow::algorithm_bytes_per_s() const {
  return total_s <= 0.0 ? 0.0 : static_cast<double>(message_bytes) * static_cast<double>(count) / total_s;
}

bool CommLog::counts(std::string_view op) const {
  const auto& ops = options_.ops;
  return ops.empty() || std::find(ops.begin(), ops.end(), op) != ops.end();
}

void CommLog::on_operation(const EndedOperation& operation) {
  const char* const op = op_kind_name(operation.kind);
  if (!counts(op)) return;
  const double seconds = 1e-9 * static_cast<double>(operation.end_ns - operation.begin_ns);
  add({op, operation.message_bytes, options_.by_unit ? std::string(operation.unit) : std::string(),
       operation.group_size},
      operation.unit, seconds);
}

void CommLog::count(std::string_view op, std::string_view unit, int64_t message_bytes, int group_size, double seconds) {
  add({std::string(op), message_bytes, std::string(unit), group_size}, unit, seconds);
}

void CommLog::add(Key key, std::string_view unit, double seconds) {
  const CommLogRow row{.op = std::get<0>(key),
                       .message_bytes = std::get<1>(key),
                       .group_size = std::get<3>(key),
                       .count = 1,
                       .total_s = seconds};
  {
    const std::lock_guard lock(mutex_);
    if (paused_) return;
    Entry& entry = entries_[std::move(key)];
    if (static_cast<int64_t>(entry.latest_s.size()) < kKept) {
      entry.latest_s.push_back(static_cast<float>(seconds));
    } else {
      entry.latest_s[entry.count % kKept] = static_cast<float>(seconds);
    }
    ++entry.count;
    entry.total_s += seconds;
  }
  if (!options_.verbose) return;
  log_info("comm: ", row.op, unit.empty() ? "" : " of unit ", unit, ", ", size_text(row.message_bytes), ", ",
           format("%.3f ms", 1e3 * seconds), ", algorithm bandwidth ",
           format("%.3f", 1e-9 * row.algorithm_bytes_per_s()), " GB/s, bus bandwidth ",
           format("%.3f", 1e-9 * row.bus_bytes_per_s()), " GB/s");
}

std::vector<CommLogRow> CommLog::rows() const {
  const std::lock_guard lock(mutex_);
  std::vector<CommLogRow> rows;
  for (const auto& [key, entry] : entries_) {
    rows.push_back(
        {std::get<0>(key), std::get<2>(key), std::get<1>(key), std::get<3>(key), entry.count, entry.total_s});
  }
  return rows;
}

std::vector<CommLogRow> CommLog::rows_with_stragglers(const Group& group) const {
  std::vector<CommLogRow> result;
  std::vector<std::string> lines;
  std::vector<float> own;
  std::vector<size_t> lengths;
  {
    const std::lock_guard lock(mutex_);
    paused_ = true;
    for (const auto& [key, entry] : entries_) {
      result.push_back(
          {std::get<0>(key), std::get<2>(key), std::get<1>(key), std::get<3>(key), entry.count, entry.total_s});
      const CommLogRow& row = result.back();
      lines.push_back(concat(row.op, row.unit.empty() ? "" : " of unit ", row.unit, ", ", row.message_bytes,
                             " bytes: ", row.count, " times"));
      lengths.push_back(entry.latest_s.size());
      own.insert(own.end(), entry.latest_s.begin(), entry.latest_s.end());
    }
  }
  const auto resume = [this] {
    const std::lock_guard lock(mutex_);
    paused_ = false;
  };
  try {
    require_agreement(group, "log_summary", lines);
    const auto num_rows = static_cast<int64_t>(result.size());
    const at::Tensor least = at::empty({static_cast<int64_t>(own.size())}, at::kFloat);
    auto* negative = least.data_ptr<float>();
    for (size_t i = 0; i < own.size(); ++i) negative[i] = -own[i];
    group.all_reduce(least, ReduceOp::kMax, {.unit = "stragglers"}).wait();
    const at::Tensor mine = at::empty({num_rows}, at::kFloat);
    const at::Tensor all = at::empty({num_rows * group.size()}, at::kFloat);
    size_t next = 0;
    for (int64_t r = 0; r < num_rows; ++r) {
      double waited = 0.0;
      for (size_t i = 0; i < lengths[r]; ++i, ++next) waited += own[next] + negative[next];
      mine.data_ptr<float>()[r] = static_cast<float>(waited);
    }
    group.all_gather(mine, all, {.unit = "stragglers"}).wait();
    for (int64_t r = 0; r < num_rows; ++r) {
      for (int rank = 0; rank < group.size(); ++rank) {
        result[r].waited_s.push_back(all.data_ptr<float>()[rank * num_rows + r]);
      }
    }
  } catch (...) {
    resume();
    throw;
  }
  resume();
  return result;
}

void CommLog::clear() {
  const std::lock_guard lock(mutex_);
  entries_.clear();
}

std::string to_text(const std::vector<CommLogRow>& rows) {
  if (rows.empty()) return "no collective has been counted\n";
  size_t width = std::string("operation").size();
  for (const auto& row : rows) {
    width = std::max(width, row.op.size() + (row.unit.empty() ? 0 : 1 + row.unit.size()));
  }
  const int columns = static_cast<int>(width);
  std::string text = format("%-*s %12s %9s %11s %11s %13s %10s", columns, "operation", "message size", "count",
                            "total (ms)", "avg (ms)", "alg bw (GB/s)", "bus (GB/s)");
  const bool waits = std::any_of(rows.begin(), rows.end(), [](const auto& row) { return !row.waited_s.empty(); });
  text += !waits ? "\n" : "  waited for the last rank (ms), rank by rank\n";
  for (const auto& row : rows) {
    const std::string name = row.op + (row.unit.empty() ? "" : " " + row.unit);
    text += name + std::string(width - name.size(), ' ') +
            format(" %12s %9lld %11.2f %11.3f %13.3f %10.3f", size_text(row.message_bytes).c_str(),
                   static_cast<long long>(row.count), 1e3 * row.total_s, 1e3 * row.average_s(),
                   1e-9 * row.algorithm_bytes_per_s(), 1e-9 * row.bus_bytes_per_s());
    for (const double waited : row.waited_s) text += format("  %.2f", 1e3 * waited);
    text += "\n";
  }
  return text;
}

}  // namespace hydrofoil::comm
