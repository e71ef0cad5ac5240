#include "hydrofoil/data/token_stream.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "hydrofoil/base/error.h"
#include "hydrofoil/data/detail/file_cache.h"

namespace hydrofoil::data {
namespace {

constexpr const char* kFunction = "TokenStream";

}  // namespace

struct TokenStream::State {
  std::vector<TokenRange> ranges;
  std::vector<int64_t> ends;  // of each range in the stream, in tokens
  TokenStreamOptions options;
  detail::FileCache files;
};

TokenStream TokenStream::open(const std::vector<std::string>& paths, const TokenStreamOptions& options) {
  HYDROFOIL_CHECK_ARG(!paths.empty(), kFunction, "paths: got none, expected at least one file");
  std::vector<TokenRange> ranges;
  for (const std::string& path : paths) {
    HYDROFOIL_CHECK_ARG(is_npy_path(path) == is_npy_path(paths[0]), kFunction, "'", paths[0], "' and '", path,
                        "': got text and pre-tokenised (.npy) files, expected one kind");
    ranges.push_back(describe_token_file(path));
  }
  return TokenStream(std::move(ranges), options);
}

TokenStream::TokenStream(std::vector<TokenRange> ranges, const TokenStreamOptions& options)
    : state_(std::make_shared<State>()) {
  HYDROFOIL_CHECK_ARG(options.vocab_size.value_or(1) >= 1, kFunction, "vocab_size: got ", *options.vocab_size,
                      ", expected at least 1");
  int64_t end = 0;
  for (TokenRange& range : ranges) {
    if (range.num_tokens == 0) continue;
    HYDROFOIL_CHECK_ARG(
        range.num_tokens > 0 && range.byte_offset >= 0 && !__builtin_add_overflow(end, range.num_tokens, &end),
        kFunction, "'", range.path, "': got ", range.num_tokens, " tokens at byte ", range.byte_offset,
        ", expected both at least 0, and fewer than 2^63 tokens in all");
    state_->ranges.push_back(std::move(range));
    state_->ends.push_back(end);
  }
  state_->options = options;
}

int64_t TokenStream::num_tokens() const { return state_->ends.empty() ? 0 : state_->ends.back(); }

int64_t TokenStream::num_windows(int64_t context) const {
  HYDROFOIL_CHECK_ARG(context >= 1 && context < INT64_MAX, kFunction, "context: got ", context,
                      ", expected one from 1 to 2^63 - 2");
  return num_tokens() == 0 ? 0 : (num_tokens() - 1) / context;
}

at::Tensor TokenStream::read(int64_t start, int64_t length) const {
  HYDROFOIL_CHECK_ARG(length >= 0 && length <= num_tokens(), kFunction, "length: got ", length,
                      ", expected one from 0 to the stream's ", num_tokens(), " tokens");
  at::Tensor tokens = at::empty({length}, at::kLong);
  read_into(start, {tokens.mutable_data_ptr<int64_t>(), static_cast<size_t>(length)});
  return tokens;
}

void TokenStream::read_into(int64_t start, std::span<int64_t> out) const {
  const auto length = static_cast<int64_t>(out.size());
  HYDROFOIL_CHECK_ARG(start >= 0 && start <= num_tokens() && length <= num_tokens() - start, kFunction, "got ", length,
                      " tokens at ", start, ", expected a range within the stream's ", num_tokens());
  const auto& ends = state_->ends;
  auto at = static_cast<size_t>(std::upper_bound(ends.begin(), ends.end(), start) - ends.begin());
  while (!out.empty()) {
    const TokenRange& range = state_->ranges[at];
    const int64_t first = start - (ends[at] - range.num_tokens);
    const auto count = std::min(out.size(), static_cast<size_t>(range.num_tokens - first));
    read_tokens(range, *state_->files.get(range.path), first, out.first(count), state_->options.vocab_size);
    out = out.subspan(count);
    start += static_cast<int64_t>(count);
    ++at;
  }
}

const std::vector<TokenRange>& TokenStream::ranges() const { return state_->ranges; }

}  // namespace hydrofoil::data
