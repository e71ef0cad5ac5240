#include "hydrofoil/data/token_stream.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <numeric>
#include <thread>

#include "hydrofoil/base/error.h"
#include "hydrofoil/data/detail/file_cache.h"
#include "tests/support/temporary_directory.h"
#include "tests/support/token_files.h"

namespace hydrofoil::data {
namespace {

namespace fs = std::filesystem;

std::vector<int64_t> values(const at::Tensor& tokens) {
  const int64_t* data = tokens.const_data_ptr<int64_t>();
  return {data, data + tokens.numel()};
}

class TokenStreams : public testing::Test {
 protected:
  std::string put(const std::string& name, std::string_view bytes) const {
    const std::string path = directory_.path() + "/" + name;
    write_bytes(path, bytes);
    return path;
  }

  storage::TemporaryDirectory directory_;
};

TEST_F(TokenStreams, ReadAcrossFiles) {
  const std::string whole = "abcdefghij";
  const TokenStream stream = TokenStream::open({put("1", "abc"), put("2", "d"), put("3", "efghij")});
  ASSERT_EQ(stream.num_tokens(), 10);
  for (int64_t start = 0; start <= 10; ++start) {
    for (int64_t end = start; end <= 10; ++end) {
      const at::Tensor tokens = stream.read(start, end - start);
      EXPECT_EQ(tokens.scalar_type(), at::kLong);
      EXPECT_EQ(values(tokens), std::vector<int64_t>(whole.begin() + start, whole.begin() + end));
    }
  }
}

TEST_F(TokenStreams, RefuseRangesOutside) {
  const TokenStream stream = TokenStream::open({put("1", "abcdefghij")});
  for (const auto& [start, length] : {std::pair<int64_t, int64_t>{0, 11}, {10, 1}, {-1, 2}, {0, -1}, {1, INT64_MAX}}) {
    EXPECT_THROW((void)stream.read(start, length), InvalidArgument) << start << " " << length;
  }
  EXPECT_THROW((void)stream.num_windows(0), InvalidArgument);
  EXPECT_EQ(stream.num_windows(9), 1);
  EXPECT_EQ(stream.num_windows(10), 0);
}

TEST_F(TokenStreams, WidenEveryType) {
  EXPECT_EQ(values(TokenStream::open({put("a.npy", npy_of<uint8_t>("|u1", {0, 255}))}).read(0, 2)),
            (std::vector<int64_t>{0, 255}));
  EXPECT_EQ(values(TokenStream::open({put("b.npy", npy_of<uint16_t>("<u2", {0, 65535}))}).read(0, 2)),
            (std::vector<int64_t>{0, 65535}));
  EXPECT_EQ(values(TokenStream::open({put("c.npy", npy_of<uint32_t>("<u4", {7, UINT32_MAX}))}).read(0, 2)),
            (std::vector<int64_t>{7, UINT32_MAX}));
  EXPECT_EQ(values(TokenStream::open({put("d.npy", npy_of<int32_t>("<i4", {7, INT32_MAX}))}).read(0, 2)),
            (std::vector<int64_t>{7, INT32_MAX}));
  EXPECT_EQ(values(TokenStream::open({put("e.npy", npy_of<int64_t>("<i8", {7, INT64_MAX - 1}))}).read(0, 2)),
            (std::vector<int64_t>{7, INT64_MAX - 1}));
}

TEST_F(TokenStreams, ConcatenateArraysOfDifferentTypesInTheOrderGiven) {
  const TokenStream stream = TokenStream::open(
      {put("b.npy", npy_of<uint16_t>("<u2", {300, 301})), put("a.npy", npy_of<int64_t>("<i8", {5, 6, 7}))});
  EXPECT_EQ(values(stream.read(1, 3)), (std::vector<int64_t>{301, 5, 6}));
}

TEST_F(TokenStreams, ReadLongRangesWhole) {
  std::vector<uint16_t> tokens(100'001);
  std::iota(tokens.begin(), tokens.end(), 0);
  const TokenStream stream = TokenStream::open({put("a.npy", npy_of("<u2", tokens))});
  const std::vector<int64_t> got = values(stream.read(1, 100'000));
  EXPECT_TRUE(std::equal(got.begin(), got.end(), tokens.begin() + 1));
}

TEST_F(TokenStreams, NameFileAndByteOfATokenOutsideTheVocabulary) {
  const std::string path = put("a.npy", npy_of<int32_t>("<i4", {1, 2, 3, -4, 50}));
  const TokenStream stream = TokenStream::open({path}, {.vocab_size = 50});
  EXPECT_EQ(values(stream.read(0, 3)), (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(error_of<InvalidArgument>([&] { (void)stream.read(2, 2); }),
            "[data] '" + path + "': byte 140: got token -4, expected none below 0");
  EXPECT_EQ(error_of<InvalidArgument>([&] { (void)stream.read(4, 1); }),
            "[data] '" + path + "': byte 144: got token 50, expected one below the vocabulary's size 50");
  EXPECT_THROW((void)TokenStream::open({path}).read(3, 1), InvalidArgument) << "negative without a vocabulary, too";
  EXPECT_THROW((void)TokenStream::open({path}, {.vocab_size = 0}), InvalidArgument);
}

TEST_F(TokenStreams, RefuseFilesWithoutTokens) {
  const auto defect = [](const std::string& path) { return error_of<Error>([&] { (void)TokenStream::open({path}); }); };
  EXPECT_NE(defect(put("empty.txt", "")).find("empty.txt': byte 0: the file is empty"), std::string::npos);
  EXPECT_NE(defect(put("binary", {"ELF\0\1", 5})).find("binary': byte 3: a zero byte"), std::string::npos);
  EXPECT_NE(defect(put("text.npy", "some text")).find("text.npy': byte 0: got 'some t'"), std::string::npos);
  EXPECT_NE(defect(directory_.path()).find("not a regular file"), std::string::npos);
  EXPECT_NE(defect(directory_.path() + "/none").find("none"), std::string::npos);
  EXPECT_THROW((void)TokenStream::open({}), InvalidArgument);
  EXPECT_THROW((void)TokenStream::open({put("a", "x"), put("a.npy", npy_of<uint8_t>("|u1", {1}))}), InvalidArgument);
}

TEST_F(TokenStreams, ThatShrinkAreErrorsWithFileAndByte) {
  const std::string path = put("shrinks.txt", std::string(10'000, 'x'));
  const TokenStream stream = TokenStream::open({path});
  fs::resize_file(path, 9'000);  // before it was mapped
  EXPECT_NE(error_of<SystemError>([&] { (void)stream.read(8'999, 20); }).find("shrinks.txt': byte 9000"),
            std::string::npos);
  EXPECT_EQ(stream.read(0, 9'000).numel(), 9'000);
  fs::resize_file(path, 100);  // while it is mapped: a whole page is gone
  EXPECT_NE(error_of<SystemError>([&] { (void)stream.read(8'000, 20); }).find("it ends at byte 100"),
            std::string::npos);
  EXPECT_EQ(stream.read(0, 100).numel(), 100);
}

TEST_F(TokenStreams, OpenFewFilesOfMany) {
  std::vector<std::string> paths;
  for (int i = 0; i < 3 * static_cast<int>(detail::FileCache::kMaxOpenFiles); ++i) {
    paths.push_back(put(std::to_string(i), std::string(3, static_cast<char>('0' + i % 75))));
  }
  const TokenStream stream = TokenStream::open(paths);
  const auto open_files = [] {
    return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
  };
  const auto before = open_files();
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (int64_t i = 0; i < stream.num_tokens(); i += 2) {
        const int64_t at = (i * 7 + thread) % (stream.num_tokens() - 1);
        EXPECT_EQ(values(stream.read(at, 2))[0], '0' + at / 3 % 75);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(open_files() - before, static_cast<ptrdiff_t>(detail::FileCache::kMaxOpenFiles));
}

}  // namespace
}  // namespace hydrofoil::data
