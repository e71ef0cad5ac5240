#include "hydrofoil/storage/mapped_file.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "hydrofoil/base/error.h"
#include "tests/support/temporary_directory.h"

namespace hydrofoil::storage {
namespace {

class MappedFiles : public testing::Test {
 protected:
  std::string put(const std::string& bytes) const {
    write_file_atomically(directory_.path() + "/file", bytes);
    return directory_.path() + "/file";
  }

  TemporaryDirectory directory_;
};

TEST_F(MappedFiles, ReadAnyRange) {
  const std::string bytes = std::string(5000, 'a') + std::string(5000, 'b');
  const MappedFile file(put(bytes));
  EXPECT_EQ(file.size(), 10'000);
  std::string out(10'000, ' ');
  file.read_at(out.data(), 10'000, 0);
  EXPECT_EQ(out, bytes);
  file.read_at(out.data(), 2, 4999);
  EXPECT_EQ(out.substr(0, 2), "ab");
  file.read_at(out.data(), 0, 10'000);
}

TEST_F(MappedFiles, RefuseRangesOutside) {
  const MappedFile file(put("abc"));
  char out[8];
  EXPECT_THROW(file.read_at(out, 4, 0), InvalidArgument);
  EXPECT_THROW(file.read_at(out, 1, 3), InvalidArgument);
  EXPECT_THROW(file.read_at(out, -1, 0), InvalidArgument);
  EXPECT_THROW(file.read_at(out, 1, -1), InvalidArgument);
  EXPECT_THROW(file.read_at(out, INT64_MAX, 1), InvalidArgument);
}

TEST_F(MappedFiles, ThatShrinkAreErrorsAndNotSignals) {
  const std::string path = put(std::string(20'000, 'x'));
  const MappedFile file(path);
  std::filesystem::resize_file(path, 100);
  char out[100];
  EXPECT_THROW(file.read_at(out, 1, 100), SystemError);  // in the last page that is left
  EXPECT_THROW(file.read_at(out, 1, 19'999), SystemError);
  EXPECT_NO_THROW(file.read_at(out, 100, 0));
}

TEST_F(MappedFiles, MayBeEmptyButMustBeFiles) {
  const MappedFile file(put(""));
  EXPECT_EQ(file.size(), 0);
  EXPECT_NO_THROW(file.read_at(nullptr, 0, 0));
  EXPECT_THROW(MappedFile{directory_.path()}, SystemError);
  EXPECT_THROW(MappedFile{"/dev/zero"}, SystemError);
}

}  // namespace
}  // namespace hydrofoil::storage
