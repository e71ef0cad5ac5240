#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "hydrofoil/data/token_file.h"

namespace hydrofoil::data {

struct TokenStreamOptions {
  std::optional<int64_t> vocab_size;  // tokens from this on are an error when they are read; none: any token is taken
};

// Token files one after the other, read as if they were one. Files are mapped when they are read, at most a few at a
// time, so neither memory nor descriptors grow with the data. Copies share the files; several threads may read.
class TokenStream {
 public:
  // The whole files, in the order given; all are plain text or all are .npy (see describe_token_file). Throws
  // InvalidArgument where there is none, where they are mixed, and with file and byte where one is no token file.
  [[nodiscard]] static TokenStream open(const std::vector<std::string>& paths, const TokenStreamOptions& options = {});

  // The given parts of files; empty ones are left out.
  explicit TokenStream(std::vector<TokenRange> ranges, const TokenStreamOptions& options = {});

  [[nodiscard]] int64_t num_tokens() const;

  // How many windows of `context` tokens, each with the token that follows it, fit without overlap.
  [[nodiscard]] int64_t num_windows(int64_t context) const;

  // Tokens [start, start + length), int64 [length] on the CPU. Throws InvalidArgument outside num_tokens() and with
  // file and byte at a token outside the vocabulary, SystemError with both where a file has become shorter.
  [[nodiscard]] at::Tensor read(int64_t start, int64_t length) const;
  void read_into(int64_t start, std::span<int64_t> out) const;

  [[nodiscard]] const std::vector<TokenRange>& ranges() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace hydrofoil::data
