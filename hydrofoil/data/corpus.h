#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "hydrofoil/data/token_stream.h"

namespace hydrofoil::data {

// Of this many files, or this many parts of a file, one is held out.
inline constexpr int64_t kHoldOutEvery = 20;

// Tokens to train on and tokens held out.
struct Corpus {
  std::string name;  // for reports
  TokenStream train;
  TokenStream held_out;
  int64_t num_skipped = 0;  // binary files in folders, left out
};

// Finds the token files in `paths` (files or folders, in the order given) and splits them.
//
// A folder stands for its regular files, also in its subfolders, sorted by path; hidden files and folders, empty files
// and binary ones are left out. Every 20th file is held out; of fewer than 20 files, the last twentieth of each. Text
// is split as examples/python/language_model/data.py does it. Throws InvalidArgument where the data is missing, empty,
// binary, of both kinds (text and .npy), or too short for one window of `context` tokens and the next on either side.
[[nodiscard]] Corpus load_corpus(const std::vector<std::string>& paths, int64_t context,
                                 const TokenStreamOptions& options = {});

}  // namespace hydrofoil::data
