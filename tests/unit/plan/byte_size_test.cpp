#include "hydrofoil/plan/byte_size.h"

#include <gtest/gtest.h>

#include "hydrofoil/base/error.h"

namespace hydrofoil::plan {
namespace {

TEST(ByteSize, ReadsNumbersWithUnits) {
  EXPECT_EQ(parse_byte_size("--memory", "24GiB"), int64_t{24} << 30);
  EXPECT_EQ(parse_byte_size("--memory", "1.5 KiB"), 1536);
  EXPECT_EQ(parse_byte_size("--memory", "80GB"), 80'000'000'000);
  EXPECT_EQ(parse_byte_size("--memory", "4096"), 4096);
  EXPECT_EQ(parse_byte_size("--memory", "1B"), 1);
}

TEST(ByteSize, RefusesEverythingElse) {
  for (const char* text : {"", "GiB", "24 gib", "24G", "-1GiB", "1e9", "1.2.3GiB", "0.3B", "0", "9000000PiB", "24GiB ",
                           "nan", "inf", "0x10"}) {
    try {
      (void)parse_byte_size("--memory", text);
      ADD_FAILURE() << text;
    } catch (const InvalidArgument& error) {
      EXPECT_NE(std::string(error.what()).find("--memory: got \"" + std::string(text) + "\""), std::string::npos)
          << error.what();
    }
  }
}

TEST(ByteSize, PrintsTheLargestUnitThatFits) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1536), "1.50 KiB");
  EXPECT_EQ(format_bytes(int64_t{24} << 30), "24.0 GiB");
  EXPECT_EQ(format_bytes(int64_t{2000} << 50), "2000 PiB");
}

}  // namespace
}  // namespace hydrofoil::plan
