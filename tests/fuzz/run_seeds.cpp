// Stands in for libFuzzer where there is no clang: runs a fuzz target over every seed of the given folders, and over
// the same changed copies of each at every run. A failure prints how to make the input again, and leaves it in a file.
#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

constexpr size_t kNumTruncations = 64;
constexpr uint64_t kNumChanges = 1000;  // of each seed

std::string current_input;
std::string current_name;

// After a signal nothing is certain; the process is at its end anyway.
void report(int signal) {
  std::fprintf(stderr, "signal %d at %s; the input is in failed_input\n", signal, current_name.c_str());
  if (std::FILE* file = std::fopen("failed_input", "wb")) {
    std::fwrite(current_input.data(), 1, current_input.size(), file);
    std::fclose(file);
  }
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

void run(std::string input, std::string name) {
  current_input = std::move(input);
  current_name = std::move(name);
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(current_input.data()), current_input.size());
}

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  // Evenly enough in [0, bound).
  size_t below(size_t bound) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<size_t>((state_ >> 33) % std::max<size_t>(bound, 1));
  }

 private:
  uint64_t state_;
};

void change_once(std::string& text, Random& random) {
  using namespace std::string_view_literals;
  constexpr auto kTelling = "\0\xff\x7f\x80{}[](),:'\"\\-09eE. \n"sv;
  const size_t at = random.below(text.size());
  const size_t length = 1 + random.below(std::min<size_t>(text.size() - std::min(text.size(), at), 32));
  switch (random.below(5)) {
    case 0:
      if (!text.empty()) text[at] = static_cast<char>(text[at] ^ (1 << random.below(8)));
      return;
    case 1:
      if (!text.empty()) text[at] = kTelling[random.below(kTelling.size())];
      return;
    case 2:
      text.erase(at, length);
      return;
    case 3:
      text.insert(at, text.substr(random.below(text.size()), length));
      return;
    default:
      text.insert(at, 1, kTelling[random.below(kTelling.size())]);
  }
}

void run_seed(const std::string& seed, const std::string& name) {
  run(seed, name);
  for (size_t i = 0; i < kNumTruncations; ++i) {
    const size_t length = seed.size() * i / kNumTruncations;
    run(seed.substr(0, length), name + ", cut to " + std::to_string(length) + " bytes");
  }
  for (uint64_t change = 0; change < kNumChanges; ++change) {
    Random random(change);
    std::string text = seed;
    for (size_t i = 0; i <= change % 4; ++i) change_once(text, random);
    run(std::move(text), name + ", change " + std::to_string(change));
  }
}

}  // namespace

int main(int argc, char** argv) {
  for (const int signal : {SIGABRT, SIGSEGV, SIGFPE, SIGBUS, SIGILL}) std::signal(signal, report);
  run("", "the empty input");
  size_t num_seeds = 0;
  for (int i = 1; i < argc; ++i) {
    std::vector<std::filesystem::path> paths;
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) paths.push_back(entry.path());
    std::sort(paths.begin(), paths.end());
    for (const auto& path : paths) {
      std::ifstream file(path, std::ios::binary);
      run_seed({std::istreambuf_iterator<char>(file), {}}, path.string());
      ++num_seeds;
    }
  }
  if (num_seeds == 0) {
    std::fprintf(stderr, "no seeds: name at least one folder with files\n");
    return 2;
  }
  std::printf("%zu seeds, %zu inputs\n", num_seeds, 1 + num_seeds * (1 + kNumTruncations + kNumChanges));
  return 0;
}
