#pragma once

#include <cstdint>

namespace hydrofoil::data {

// Where the permutation of [0, size) that `seed` and `epoch` choose sends `index`: a Feistel network of four rounds, so
// it takes no memory. examples/python/language_model/data.py computes the same; tests hold both to one table.
//
// Throws InvalidArgument unless 0 <= index < size.
[[nodiscard]] int64_t permuted(int64_t index, int64_t size, int64_t seed, int64_t epoch);

}  // namespace hydrofoil::data
