// Prints what the C++ data module makes of files, for tests/python/test_data_windows.py to compare with Python:
//   data_check CONTEXT GLOBAL_BATCH SEED RANK WORLD_SIZE ACCUMULATION NUM_STEPS PATH...
// A line with the sizes of the corpus; one with windows, then one with inputs, for each step and micro step.
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "hydrofoil/data/batches.h"
#include "hydrofoil/data/corpus.h"

int main(int argc, char** argv) {
  using namespace hydrofoil::data;
  if (argc < 9) return 2;
  try {
    const auto number = [&](int i) { return std::atoll(argv[i]); };
    const BatchesOptions options{.context = number(1),
                                 .global_batch = number(2),
                                 .seed = number(3),
                                 .rank = number(4),
                                 .world_size = number(5),
                                 .accumulation = number(6)};
    const Corpus corpus = load_corpus({argv + 8, argv + argc}, options.context);
    std::cout << corpus.train.num_tokens() << " " << corpus.held_out.num_tokens() << " " << corpus.num_skipped << "\n";
    const Batches batches(corpus.train, options);
    for (int64_t step = 0; step < number(7); ++step) {
      for (int64_t micro_step = 0; micro_step < options.accumulation; ++micro_step) {
        for (const int64_t index : batches.window_indices(step, micro_step)) std::cout << index << " ";
        std::cout << "\n";
        const at::Tensor inputs = batches.micro_batch(step, micro_step).inputs;
        const int64_t* tokens = inputs.const_data_ptr<int64_t>();
        for (int64_t i = 0; i < inputs.numel(); ++i) std::cout << tokens[i] << " ";
        std::cout << "\n";
      }
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
  return 0;
}
