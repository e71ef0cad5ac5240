#include "hydrofoil/storage/safetensors.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <numeric>

#include "hydrofoil/base/error.h"
#include "tests/support/temporary_directory.h"

namespace hydrofoil::storage {
namespace {

namespace fs = std::filesystem;

class Safetensors : public testing::Test {
 protected:
  std::string path() const { return directory_.path() + "/a.safetensors"; }
  std::string bytes() const { return read_file(path(), 1 << 20); }

  // A file as anybody could have made it.
  void put(const std::string& header, const std::string& data, std::optional<uint64_t> length = std::nullopt) const {
    const uint64_t header_bytes = length.value_or(header.size());
    std::string all(reinterpret_cast<const char*>(&header_bytes), 8);
    write_file_atomically(path(), all + header + data);
  }

  std::string defect() const {
    try {
      SafetensorsReader reader(path());
    } catch (const InvalidArgument& error) {
      EXPECT_NE(std::string(error.what()).find(path()), std::string::npos) << error.what();
      return error.what();
    }
    return "";
  }

  void expect_defect(const std::string& part) const {
    const std::string what = defect();
    EXPECT_NE(what.find(part), std::string::npos) << "got: '" << what << "', expected: '" << part << "'";
  }

  void write_small_file() const {
    const float values[3] = {1, 2, 3};
    const uint8_t odd[5] = {1, 2, 3, 4, 5};
    SafetensorsWriter writer(path());
    writer.set_metadata("format", "pt");
    writer.add("odd", DType::kU8, {5});
    writer.add("values", DType::kF32, {3, 1});
    writer.add("none", DType::kBF16, {0, 7});
    writer.add("scalar", DType::kI64, {});
    const int64_t scalar = -9;
    writer.write("scalar", &scalar, 8);
    writer.write("odd", odd, 2);
    writer.write("values", values, 12);
    writer.write("odd", odd + 2, 3);
    writer.finish();
  }

  TemporaryDirectory directory_;
};

TEST_F(Safetensors, ReadsBackWhatWasWritten) {
  write_small_file();
  const SafetensorsReader reader(path());
  EXPECT_EQ(reader.metadata(), (std::map<std::string, std::string>{{"format", "pt"}}));
  ASSERT_EQ(reader.tensors().size(), 4u);
  EXPECT_EQ(reader.entry("values").shape, (std::vector<int64_t>{3, 1}));
  EXPECT_EQ(reader.entry("none").num_bytes, 0);
  float values[2] = {};
  reader.read(reader.entry("values"), 4, 8, values);
  EXPECT_EQ(values[0], 2);
  EXPECT_EQ(values[1], 3);
  uint8_t odd[5] = {};
  reader.read(reader.entry("odd"), 0, 5, odd);
  EXPECT_EQ(odd[4], 5);
  int64_t scalar = 0;
  reader.read(reader.entry("scalar"), 0, 8, &scalar);
  EXPECT_EQ(scalar, -9);
}

TEST_F(Safetensors, ReadsAFileOfTheReferenceImplementation) {
  // Header as safetensors 0.8 for Python wrote it, padding included; values 0, 1, 2 and six ones.
  const std::string header =
      R"({"__metadata__":{"k":"v"},"b":{"dtype":"I64","shape":[3],"data_offsets":[0,24]},)"
      R"("a":{"dtype":"F32","shape":[2,3],"data_offsets":[24,48]},"c":{"dtype":"U8","shape":[0],"data_offsets":[48,48]}})";
  const int64_t whole[3] = {0, 1, 2};
  const float ones[6] = {1, 1, 1, 1, 1, 1};
  put(header + "      ",
      std::string(reinterpret_cast<const char*>(whole), 24) + std::string(reinterpret_cast<const char*>(ones), 24));
  const SafetensorsReader reader(path());
  EXPECT_EQ(reader.metadata().at("k"), "v");
  EXPECT_EQ(reader.entry("c").num_bytes, 0);
  float last = 0;
  reader.read(reader.entry("a"), 20, 4, &last);
  EXPECT_EQ(last, 1);
  int64_t second = 0;
  reader.read(reader.entry("b"), 8, 8, &second);
  EXPECT_EQ(second, 1);
}

TEST_F(Safetensors, AlignsHeaderAndTensors) {
  write_small_file();
  uint64_t length = 0;
  std::memcpy(&length, bytes().data(), 8);
  EXPECT_EQ(length % 8, 0u);
  const SafetensorsReader reader(path());
  for (const TensorEntry& entry : reader.tensors()) EXPECT_EQ(entry.offset % dtype_bytes(entry.dtype), 0) << entry.name;
}

TEST_F(Safetensors, HoldsNoTensorAtAll) {
  SafetensorsWriter(path()).finish();
  EXPECT_TRUE(SafetensorsReader(path()).tensors().empty());
}

TEST_F(Safetensors, ReaderKeepsRangesInsideTheTensor) {
  write_small_file();
  const SafetensorsReader reader(path());
  const TensorEntry& entry = reader.entry("values");
  char out[16];
  EXPECT_THROW(reader.read(entry, 0, 13, out), InvalidArgument);
  EXPECT_THROW(reader.read(entry, -1, 1, out), InvalidArgument);
  EXPECT_THROW(reader.read(entry, 13, 0, out), InvalidArgument);
  EXPECT_THROW(reader.read(entry, 8, INT64_MAX, out), InvalidArgument);
  EXPECT_NO_THROW(reader.read(entry, 12, 0, out));
}

TEST_F(Safetensors, UnknownNameGetsTheNearest) {
  write_small_file();
  const SafetensorsReader reader(path());
  try {
    (void)reader.entry("valeus");
    FAIL() << "no exception";
  } catch (const InvalidArgument& error) {
    EXPECT_NE(std::string(error.what()).find("'values'"), std::string::npos) << error.what();
  }
}

TEST_F(Safetensors, WriterRejectsWrongUse) {
  const std::string file = path();
  EXPECT_THROW(SafetensorsWriter(file).add("__metadata__", DType::kF32, {1}), InvalidArgument);
  EXPECT_THROW(SafetensorsWriter(file).add("a", DType::kF32, {-1}), InvalidArgument);
  EXPECT_THROW(SafetensorsWriter(file).add("a", DType::kF32, {INT64_MAX / 2}), InvalidArgument);
  EXPECT_THROW(SafetensorsWriter(file).add("a", DType::kF32, {INT64_MAX, 0, 3}), InvalidArgument);
  EXPECT_THROW(SafetensorsWriter(file).write("a", "", 0), InvalidArgument);
  {
    SafetensorsWriter writer(file);
    writer.add("a", DType::kU8, {2});
    EXPECT_THROW(writer.add("a", DType::kU8, {2}), InvalidArgument);
    EXPECT_THROW(writer.write("a", "xyz", 3), InvalidArgument);
    EXPECT_THROW(writer.write("a", "xy", 2), InvalidArgument);  // after an error
  }
  {
    SafetensorsWriter writer(file);
    writer.add("a", DType::kU8, {2});
    writer.write("a", "x", 1);
    EXPECT_THROW(writer.add("b", DType::kU8, {2}), InvalidArgument);
    EXPECT_THROW(writer.set_metadata("k", "v"), InvalidArgument);
    EXPECT_THROW(writer.finish(), InvalidArgument);  // a byte is missing
    EXPECT_THROW(writer.finish(), InvalidArgument);
  }
  {
    SafetensorsWriter writer(file);
    writer.add("\xff", DType::kU8, {0});
    EXPECT_THROW(writer.finish(), InvalidArgument);
  }
  {
    SafetensorsWriter writer(file);
    writer.add("a", DType::kU8, {INT64_MAX});
    writer.add("b", DType::kU8, {INT64_MAX});
    EXPECT_THROW(writer.finish(), InvalidArgument);
  }
  EXPECT_TRUE(fs::is_empty(directory_.path()));
}

TEST_F(Safetensors, AbandonedWriterLeavesTheOldFile) {
  write_small_file();
  const std::string before = bytes();
  {
    SafetensorsWriter writer(path());
    writer.add("a", DType::kU8, {2});
    writer.write("a", "xy", 2);
  }
  EXPECT_EQ(bytes(), before);
  EXPECT_EQ(directory_.names(), std::vector<std::string>{"a.safetensors"});
}

TEST_F(Safetensors, FullDiskIsAnErrorThatNamesTheFile) {
  write_small_file();
  const std::string before = bytes();
  fs::create_symlink("/dev/full", path() + std::string(kPartialSuffix));
  SafetensorsWriter writer(path());
  writer.add("a", DType::kU8, {2});
  try {
    writer.write("a", "xy", 2);
    writer.finish();
    FAIL() << "no exception";
  } catch (const SystemError& error) {
    EXPECT_NE(std::string(error.what()).find("a.safetensors"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("No space left"), std::string::npos) << error.what();
  }
  EXPECT_EQ(bytes(), before);
  EXPECT_EQ(directory_.names(), std::vector<std::string>{"a.safetensors"});
}

TEST_F(Safetensors, EveryTruncationIsAnError) {
  write_small_file();
  const std::string all = bytes();
  for (size_t size = 0; size < all.size(); ++size) {
    write_file_atomically(path(), all.substr(0, size));
    EXPECT_NE(defect(), "") << size << " bytes of " << all.size();
  }
  write_file_atomically(path(), all + "x");
  expect_defect("bytes follow the last tensor");
}

TEST_F(Safetensors, FlippedHeaderBitsNeverReadOutside) {
  write_small_file();
  const std::string all = bytes();
  uint64_t length = 0;
  std::memcpy(&length, all.data(), 8);
  for (size_t i = 0; i < 8 + length; ++i) {
    for (const int bit : {0, 1, 2, 3, 4, 5, 6, 7}) {
      std::string damaged = all;
      damaged[i] = static_cast<char>(damaged[i] ^ (1 << bit));
      write_file_atomically(path(), damaged);
      try {
        const SafetensorsReader reader(path());
        for (const TensorEntry& entry : reader.tensors()) {
          std::string out(static_cast<size_t>(entry.num_bytes), '\0');
          reader.read(entry, 0, entry.num_bytes, out.data());
        }
      } catch (const Error&) {
      }
    }
  }
}

TEST_F(Safetensors, HostileHeadersAreNamed) {
  put("{}", "", uint64_t{1} << 63);
  expect_defect("expected at most 100000000");
  put("{}", "", UINT64_MAX);
  expect_defect("header length");
  put("{}", "", 3);
  expect_defect("truncated");
  put("[]", "");
  expect_defect("does not begin with '{'");
  put("", "");
  expect_defect("does not begin with '{'");
  put("{", "");
  expect_defect("invalid JSON");
  put("{} x", "");
  expect_defect("invalid JSON");
  put("{\"a\xff\":1}", "");
  expect_defect("invalid JSON");
  put(R"({"a":)" + std::string(100'000, '[') + std::string(100'000, ']') + "}", "");
  expect_defect("nests deeper");
  put(R"({"a":1})", "");
  expect_defect("expected an object");
  put(R"({"__metadata__":{"a":1}})", "");
  expect_defect("expected a string");
  put(R"({"__metadata__":[]})", "");
  expect_defect("expected an object");
}

TEST_F(Safetensors, HostileTensorsAreNamed) {
  put(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
      "xy");
  expect_defect("duplicate key 'a'");
  put(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
      "xy");
  expect_defect("overlap");
  put(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
      "xyz");
  expect_defect("gap");
  put(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "xy");
  expect_defect("bytes follow");
  put(R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})", "xy");
  expect_defect("truncated");
  put(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[2,0]}})", "xy");
  expect_defect("data_offsets");
  put(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,1,2]}})", "xy");
  expect_defect("data_offsets");
  put(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[-1,1]}})", "xy");
  expect_defect("data_offsets: got -1");
  put(R"({"a":{"dtype":"U8","shape":[2.0],"data_offsets":[0,2]}})", "xy");
  expect_defect("shape: got 2.0");
  put(R"({"a":{"dtype":"U8","shape":["2"],"data_offsets":[0,2]}})", "xy");
  expect_defect("shape: got string");
  put(R"({"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,2]}})", "xy");
  expect_defect("expected an integer from 0 to 2^63 - 1");
  put(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", "");
  expect_defect("over 2^63 - 1");
  put(R"({"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}})", "");
  expect_defect("over 2^63 - 1");
  put(R"({"a":{"dtype":"F31","shape":[2],"data_offsets":[0,2]}})", "xy");
  expect_defect("got 'F31'");
  put(R"({"a":{"shape":[2],"data_offsets":[0,2]}})", "xy");
  expect_defect("dtype: expected a string");
  put(R"({"a":{"dtype":"U8","data_offsets":[0,2]}})", "xy");
  expect_defect("shape: expected an array");
}

TEST_F(Safetensors, ReadsNothingButRegularFiles) {
  EXPECT_THROW(SafetensorsReader(directory_.path() + "/none"), SystemError);
  EXPECT_THROW(SafetensorsReader{directory_.path()}, SystemError);
  EXPECT_THROW(SafetensorsReader("/dev/zero"), SystemError);
}

TEST_F(Safetensors, FileThatShrinksIsAnError) {
  write_small_file();
  const SafetensorsReader reader(path());
  fs::resize_file(path(), 100);
  char out[12];
  EXPECT_THROW(reader.read(reader.entry("values"), 0, 12, out), SystemError);
}

TEST(DType, NamesGoBothWays) {
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kF16, DType::kBF16, DType::kI64, DType::kI32, DType::kI16,
                            DType::kI8, DType::kU8, DType::kBool}) {
    EXPECT_EQ(parse_dtype(dtype_name(dtype)), dtype);
  }
  EXPECT_EQ(parse_dtype("f32"), std::nullopt);
}

TEST(CheckedNumel, RefusesOverflowAndNegatives) {
  EXPECT_EQ(checked_numel({}), 1);
  EXPECT_EQ(checked_numel(std::vector<int64_t>{3, 0, 5}), 0);
  EXPECT_EQ(checked_numel(std::vector<int64_t>{INT64_MAX, 1}), INT64_MAX);
  EXPECT_EQ(checked_numel(std::vector<int64_t>{INT64_MAX, 2}), std::nullopt);
  EXPECT_EQ(checked_numel(std::vector<int64_t>{-1}), std::nullopt);
  EXPECT_EQ(checked_bytes(std::vector<int64_t>{INT64_MAX / 4}, DType::kF32), INT64_MAX / 4 * 4);
  EXPECT_EQ(checked_bytes(std::vector<int64_t>{INT64_MAX / 4 + 1}, DType::kF32), std::nullopt);
}

}  // namespace
}  // namespace hydrofoil::storage
