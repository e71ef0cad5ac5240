#include "hydrofoil/storage/checksum.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "hydrofoil/base/error.h"
#include "hydrofoil/storage/strict_json.h"

namespace hydrofoil::storage {
namespace {

TEST(Xxh3, HasThePublishedValueOfNothing) { EXPECT_EQ(xxh3_64(nullptr, 0), 0x2d06800538d394c2u); }

TEST(Xxh3, StreamEqualsOneCall) {
  std::string bytes(1001, 'a');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7);
  for (const size_t split : {0, 1, 500, 1001}) {
    Xxh3Stream stream;
    stream.update(bytes.data(), split);
    stream.update(bytes.data() + split, bytes.size() - split);
    EXPECT_EQ(stream.digest(), xxh3_64(bytes.data(), bytes.size()));
  }
  const uint64_t whole = xxh3_64(bytes.data(), bytes.size());
  bytes[700] ^= 1;
  EXPECT_NE(xxh3_64(bytes.data(), bytes.size()), whole);
}

TEST(ChecksumText, GoesBothWays) {
  for (const uint64_t value : {uint64_t{0}, uint64_t{0xabc}, UINT64_MAX}) {
    EXPECT_EQ(parse_checksum(checksum_text(value)), value);
  }
  EXPECT_EQ(checksum_text(0xabc), "xxh3:0000000000000abc");
  for (const char* text : {"", "xxh3:", "0000000000000abc", "xxh3:000000000000abc", "xxh3:0000000000000ABC",
                           "xxh3:000000000000-abc", "xxh3:00000000000000abc", "crc3:0000000000000abc"}) {
    EXPECT_EQ(parse_checksum(text), std::nullopt) << text;
  }
}

TEST(StrictJson, RefusesWhatItShould) {
  EXPECT_NO_THROW((void)parse_strict_json(R"({"a":[{"a":1}]})", "f", "x", 3));
  EXPECT_THROW((void)parse_strict_json(R"({"a":[{"a":1}]})", "f", "x", 2), InvalidArgument);
  EXPECT_THROW((void)parse_strict_json(R"({"b":{"a":1,"a":2}})", "f", "x", 3), InvalidArgument);
  EXPECT_THROW((void)parse_strict_json("NaN", "f", "x", 3), InvalidArgument);
  EXPECT_THROW((void)parse_strict_json("1e999", "f", "x", 3), InvalidArgument);
  EXPECT_THROW((void)parse_strict_json("", "f", "x", 3), InvalidArgument);
}

}  // namespace
}  // namespace hydrofoil::storage
