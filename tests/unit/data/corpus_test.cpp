#include "hydrofoil/data/corpus.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "hydrofoil/base/error.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/token_files.h"

namespace hydrofoil::data {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kContext = 16;

class CorpusFiles : public testing::Test {
 protected:
  std::string path(const std::string& name) const { return directory_.path() + "/" + name; }

  std::string put(const std::string& name, std::string_view bytes) const {
    fs::create_directories(fs::path(path(name)).parent_path());
    write_bytes(path(name), bytes);
    return path(name);
  }

  // `count` files of different lengths, each of its own letter's bytes.
  void put_letters(int count) const {
    for (int i = 0; i < count; ++i) {
      put(std::to_string(100 + i) + ".txt", std::string(50 + 13 * i, static_cast<char>(60 + i)));
    }
  }

  std::string defect(const std::vector<std::string>& paths) const {
    return error_of<InvalidArgument>([&] { (void)load_corpus(paths, kContext); });
  }

  void expect_defect(const std::string& name, const std::string& part) const {
    const std::string what = defect({path(name)});
    EXPECT_NE(what.find(path(name)), std::string::npos) << what;
    EXPECT_NE(what.find(part), std::string::npos) << what;
  }

  storage::TemporaryDirectory directory_;
};

std::set<int64_t> distinct(const TokenStream& stream) {
  const at::Tensor tokens = stream.read(0, stream.num_tokens());
  const int64_t* data = tokens.const_data_ptr<int64_t>();
  return {data, data + tokens.numel()};
}

TEST_F(CorpusFiles, HoldOutEveryTwentiethFile) {
  put_letters(41);
  const Corpus corpus = load_corpus({directory_.path()}, kContext);
  EXPECT_EQ(corpus.train.ranges().size(), 39u);
  EXPECT_EQ(distinct(corpus.held_out), (std::set<int64_t>{60 + 19, 60 + 39}));
  EXPECT_EQ(distinct(corpus.train).size(), 39u);
  EXPECT_EQ(corpus.name, directory_.path());
}

TEST_F(CorpusFiles, HoldOutTheLastTwentiethOfAFile) {
  std::string text;
  for (int i = 0; i < 2001; ++i) text += static_cast<char>(32 + i % 90);
  const Corpus corpus = load_corpus({put("book.txt", text)}, kContext);
  ASSERT_EQ(corpus.train.num_tokens(), 1901);
  ASSERT_EQ(corpus.held_out.num_tokens(), 100);
  EXPECT_EQ(corpus.held_out.read(0, 1).item<int64_t>(), text[1901]);
}

TEST_F(CorpusFiles, HoldOutTheLastTwentiethOfAnArray) {
  std::vector<uint16_t> tokens(1000);
  for (int i = 0; i < 1000; ++i) tokens[static_cast<size_t>(i)] = static_cast<uint16_t>(1000 + i);
  const Corpus corpus = load_corpus({put("tokens.npy", npy_of("<u2", tokens))}, kContext, {.vocab_size = 2000});
  EXPECT_EQ(corpus.train.num_tokens(), 950);
  EXPECT_EQ(corpus.held_out.read(0, 1).item<int64_t>(), 1950);
  EXPECT_EQ(corpus.held_out.read(49, 1).item<int64_t>(), 1999);
}

TEST_F(CorpusFiles, StandInTheOrderOfTheirPathsComponentByComponent) {
  for (const char* name : {"a-b.txt", "a/z.txt", "a.txt", "B.txt", "a/b/c.txt"}) put(name, std::string(400, 'x'));
  const Corpus corpus = load_corpus({directory_.path()}, kContext);
  std::vector<std::string> names;
  for (const TokenRange& range : corpus.train.ranges()) names.push_back(fs::relative(range.path, directory_.path()));
  EXPECT_EQ(names, (std::vector<std::string>{"B.txt", "a/b/c.txt", "a/z.txt", "a-b.txt", "a.txt"}));
}

TEST_F(CorpusFiles, AreTakenInTheOrderGiven) {
  const std::string b = put("b", std::string(400, 'b'));
  put("a/1", std::string(400, 'a'));
  const Corpus corpus = load_corpus({b, path("a")}, kContext);
  EXPECT_EQ(corpus.train.ranges()[0].path, b);
  EXPECT_EQ(corpus.name, b + " and 1 more");
}

TEST_F(CorpusFiles, LeaveOutHiddenEmptyAndBinaryOnesInFolders) {
  put("text", std::string(800, 'x'));
  put("empty", "");
  put("picture.png", {"\x89PNG\0\0", 6});
  put(".hidden", "secret");
  put(".folder/text", "secret");
  fs::create_symlink("nowhere", path("broken"));
  fs::create_symlink(".", path("loop"));
  const Corpus corpus = load_corpus({directory_.path()}, kContext);
  EXPECT_EQ(corpus.num_skipped, 1);
  EXPECT_EQ(corpus.train.ranges().size(), 1u);
  EXPECT_EQ(distinct(corpus.train), std::set<int64_t>{'x'});
}

TEST_F(CorpusFiles, ThatCannotBeTrainedOnAreNamed) {
  expect_defect("missing", "does not exist");
  fs::create_directory(path("empty_folder"));
  expect_defect("empty_folder", "is empty");
  put("empty", "");
  expect_defect("empty", "byte 0: the file is empty");
  put("binary", {"ELF\0\1\2", 6});
  expect_defect("binary", "byte 3: a zero byte");
  put("binaries/one", {"ELF\0\1\2", 6});
  expect_defect("binaries", "is binary");
  put("short", "short");
  expect_defect("short", "too short: 5 tokens");
  put("no_tail", std::string(20 * kContext, 'x'));
  expect_defect("no_tail", "to hold out");
  put("mixed/text", "text");
  put("mixed/tokens.npy", npy_of<uint8_t>("|u1", {1}));
  expect_defect("mixed", "expected one kind");
  put("arrays/cut.npy", npy_of<uint8_t>("|u1", {1, 2}).substr(0, 129));
  expect_defect("arrays", "cut.npy': byte 129: the file ends after 1 tokens, expected 2");
  EXPECT_NE(defect({}).find("got none"), std::string::npos);
}

}  // namespace
}  // namespace hydrofoil::data
