#include "hydrofoil/comm/agree.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

#include "hydrofoil/base/error.h"
#include "hydrofoil/comm/detail/explain.h"

namespace hydrofoil::comm {
namespace {

constexpr int64_t kMaxDifference = 1024;  // bytes of a rank's account of how it differs

int64_t hash_of(const std::string& text) {
  uint64_t hash = 1469598103934665603ULL;  // FNV-1a
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  return static_cast<int64_t>(hash);
}

std::vector<int64_t> gather_numbers(const Group& group, int64_t mine) {
  at::Tensor all = at::empty({group.size()}, at::kLong);
  const at::Tensor own = at::empty({1}, at::kLong);
  own.data_ptr<int64_t>()[0] = mine;
  group.all_gather(own, all, {"agreement"}).wait();
  return {all.data_ptr<int64_t>(), all.data_ptr<int64_t>() + all.numel()};
}

std::vector<std::string> split_lines(const std::string& text) {
  std::vector<std::string> lines;
  size_t begin = 0;
  for (size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', begin)) {
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

std::string text_of_rank_0(const Group& group, const std::string& mine) {
  const std::vector<int64_t> sizes = gather_numbers(group, static_cast<int64_t>(mine.size()));
  at::Tensor bytes = at::empty({sizes[0]}, at::kChar);
  if (group.rank() == 0) std::memcpy(bytes.data_ptr(), mine.data(), mine.size());
  group.broadcast(bytes, 0, {"agreement"}).wait();
  return {static_cast<const char*>(bytes.const_data_ptr()), static_cast<size_t>(sizes[0])};
}

std::string first_difference(const std::vector<std::string>& mine, const std::vector<std::string>& first) {
  for (size_t i = 0; i < std::max(mine.size(), first.size()); ++i) {
    const std::string own = i < mine.size() ? mine[i] : "nothing";
    const std::string other = i < first.size() ? first[i] : "nothing";
    if (own != other) return "got " + own + ", rank 0 has " + other;
  }
  return "";
}

}  // namespace

void require_agreement(const Group& group, const std::string& function, const std::vector<std::string>& lines) {
  std::string text;
  for (const auto& line : lines) text += line + '\n';
  const std::vector<int64_t> hashes = gather_numbers(group, hash_of(text));
  if (std::all_of(hashes.begin(), hashes.end(), [&](int64_t hash) { return hash == hashes[0]; })) return;

  std::string difference = first_difference(split_lines(text), split_lines(text_of_rank_0(group, text)));
  difference.resize(std::min(difference.size(), static_cast<size_t>(kMaxDifference - 1)));
  at::Tensor own = at::zeros({kMaxDifference}, at::kChar);
  std::memcpy(own.data_ptr(), difference.data(), difference.size());
  at::Tensor all = at::empty({kMaxDifference * group.size()}, at::kChar);
  group.all_gather(own, all, {"agreement"}).wait();
  std::string message = "[" + function + "] the ranks were given different settings or models";
  for (int rank = 0; rank < group.size(); ++rank) {
    const char* account = static_cast<const char*>(all.const_data_ptr()) + rank * kMaxDifference;
    if (*account != '\0') message += hydrofoil::detail::concat("; rank ", rank, ": ", account);
  }
  throw CommError(message);
}

void throw_different_history(const Group& group, const std::string& function, const RunHistory& history) {
  const std::string mine = detail::pack_history(&history, std::numeric_limits<size_t>::max());
  const std::vector<int64_t> sizes = gather_numbers(group, static_cast<int64_t>(mine.size()));
  const int64_t longest = *std::max_element(sizes.begin(), sizes.end());
  at::Tensor own = at::zeros({longest}, at::kChar);
  std::memcpy(own.data_ptr(), mine.data(), mine.size());
  at::Tensor all = at::empty({longest * group.size()}, at::kChar);
  group.all_gather(own, all, {"histories"}).wait();
  std::vector<std::string> packed;
  for (int rank = 0; rank < group.size(); ++rank) {
    packed.emplace_back(static_cast<const char*>(all.const_data_ptr()) + rank * longest, sizes[rank]);
  }
  throw CommError("[" + function + "] the ranks did not run the same units in the same order." +
                  detail::first_difference(packed));
}

}  // namespace hydrofoil::comm
