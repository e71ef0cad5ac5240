#include "hydrofoil/data/npy.h"

#include <gtest/gtest.h>

#include "hydrofoil/base/error.h"
#include "tests/support/token_files.h"

namespace hydrofoil::data {
namespace {

std::string header_of(const std::string& descr, const std::string& order, const std::string& shape) {
  return "{'descr': " + descr + ", 'fortran_order': " + order + ", 'shape': " + shape + ", }";
}

TokenRange parse(const std::string& bytes) {
  return parse_npy_header(bytes, static_cast<int64_t>(bytes.size()), "a.npy");
}

std::string defect(const std::string& bytes) {
  return error_of<InvalidArgument>([&] { (void)parse(bytes); });
}

void expect_defect(const std::string& bytes, const std::string& part) {
  const std::string what = defect(bytes);
  EXPECT_TRUE(what.starts_with("[data] 'a.npy': byte ")) << what;
  EXPECT_NE(what.find(part), std::string::npos) << "got: " << what << "\nexpected: " << part;
}

TEST(NpyHeader, TakesEachTypeOfTokens) {
  const std::vector<std::tuple<std::string, TokenType, int>> types = {{"'|u1'", TokenType::kUInt8, 1},
                                                                      {"'<u2'", TokenType::kUInt16, 2},
                                                                      {"'<u4'", TokenType::kUInt32, 4},
                                                                      {"'<i4'", TokenType::kInt32, 4},
                                                                      {"'<i8'", TokenType::kInt64, 8}};
  for (const auto& [descr, type, size] : types) {
    const TokenRange range = parse(npy_bytes(header_of(descr, "False", "(3,)"), std::string(3 * size, '\1')));
    EXPECT_EQ(range.type, type);
    EXPECT_EQ(range.num_tokens, 3);
    EXPECT_EQ(range.byte_offset, 128);
    EXPECT_EQ(token_bytes(type), size);
  }
}

TEST(NpyHeader, TakesOtherSpellingsOfTheSameDictionary) {
  EXPECT_EQ(parse(npy_bytes(R"({"shape":(2 , ),"descr":"|u1","fortran_order":False})", "ab")).num_tokens, 2);
  std::string version2 = npy_bytes(header_of("'|u1'", "False", "(2,)"), "ab");
  version2[6] = 2;
  version2.insert(10, 2, '\0');
  EXPECT_EQ(parse(version2).byte_offset, 130);
}

TEST(NpyHeader, RefusesWhatIsNoTokenArray) {
  expect_defect(npy_bytes(header_of("'<f4'", "False", "(2,)"), "01234567"), "byte 20: descr: got '<f4'");
  expect_defect(npy_bytes(header_of("'>u2'", "False", "(2,)"), "0123"), "expected little-endian");
  expect_defect(npy_bytes(header_of("'<i2'", "False", "(2,)"), "0123"), "'<u2'");
  expect_defect(npy_bytes(header_of("'<u8'", "False", "(1,)"), "01234567"), "got '<u8'");
  expect_defect(npy_bytes(header_of("'|O'", "False", "(1,)"), "01234567"), "got '|O'");
  expect_defect(npy_bytes(header_of("[('a', '<u2')]", "False", "(2,)"), "0123"), "record type");
  expect_defect(npy_bytes(header_of("'<u2'", "True", "(2,)"), "0123"), "fortran_order: got True");
  expect_defect(npy_bytes(header_of("'<u2'", "0", "(2,)"), "0123"), "fortran_order: expected");
  expect_defect(npy_bytes(header_of("'<u2'", "False", "(2, 1)"), "0123"), "more than one dimension");
  expect_defect(npy_bytes(header_of("'<u2'", "False", "()"), "01"), "no dimension");
  expect_defect(npy_bytes(header_of("'<u2'", "False", "(-1,)"), "01"), "shape: expected an integer");
  expect_defect(npy_bytes(header_of("'<u2'", "False", "(9223372036854775808,)"), "01"), "over 2^63 - 1");
  expect_defect(npy_bytes(header_of("'<u2'", "False", "(2)"), "0123"), "expected ','");
}

TEST(NpyHeader, RefusesWhatIsNoDictionaryOfThree) {
  const std::string good = header_of("'|u1'", "False", "(2,)");
  expect_defect(npy_bytes(good + "x", "ab"), "text follows");
  expect_defect(npy_bytes("[]", "ab"), "expected '{'");
  expect_defect(npy_bytes("{'descr': '|u1', 'shape': (2,)}", "ab"), "no 'fortran_order'");
  expect_defect(npy_bytes("{'descr': '|u1', 'descr': '|u1'}", "ab"), "byte 27: a key of the header stands twice");
  expect_defect(npy_bytes("{'descry': '|u1'}", "ab"), "key: got 'descry'");
  expect_defect(npy_bytes("{'descr", "ab"), "has no end");
  expect_defect(npy_bytes("{'de\\x73cr': '|u1'}", "ab"), "backslash");
  expect_defect(npy_bytes("{descr: '|u1'}", "ab"), "in quotes");
  expect_defect(npy_bytes("{'descr' '|u1'}", "ab"), "expected ':'");
  expect_defect(npy_bytes("{'descr': '|u1'", "ab"), "expected '}'");
}

TEST(NpyHeader, RefusesEveryTruncationAndEveryExtraByte) {
  const std::string whole = npy_of<uint16_t>("<u2", {1, 2, 3});
  EXPECT_EQ(parse(whole).num_tokens, 3);
  for (size_t length = 0; length < whole.size(); ++length) {
    EXPECT_THROW((void)parse(whole.substr(0, length)), InvalidArgument) << length;
  }
  expect_defect("", "byte 0: the file is empty");
  expect_defect(whole.substr(0, 40), "byte 40: the file ends within its header");
  expect_defect(whole.substr(0, whole.size() - 1), "byte 133: the file ends after 2 tokens, expected 3");
  expect_defect(whole + "x", "byte 134: 1 bytes follow");
  expect_defect(npy_of<uint16_t>("<u2", {}), "holds no token");
}

TEST(NpyHeader, RefusesForeignFiles) {
  expect_defect("PK\x03\x04 a zip", "byte 0: got 'PK??");
  expect_defect("x", "byte 0: got 'x'");
  std::string bytes = npy_of<uint8_t>("|u1", {1});
  bytes[6] = 4;
  expect_defect(bytes, "byte 6: version of the format: got 4.0");
  bytes[6] = 2;  // the length now takes in two letters of the header
  expect_defect(bytes, "byte 8: length of the header");
}

// A file of 2^62 tokens' header: nothing may overflow.
TEST(NpyHeader, ChecksSizesInSixtyFourBits) {
  const std::string bytes = npy_bytes(header_of("'<i8'", "False", "(4611686018427387904,)"), "01234567");
  expect_defect(bytes, "the file ends after 1 tokens, expected 4611686018427387904");
}

}  // namespace
}  // namespace hydrofoil::data
