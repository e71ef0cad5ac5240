#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "apps/launcher/line_buffer.h"
#include "apps/launcher/process.h"
#include "hydrofoil/base/error.h"

namespace hydrofoil::launcher {
namespace {

std::vector<std::string> lines_of(const std::vector<std::string>& pieces, size_t max_line_bytes = 100) {
  LineBuffer buffer(max_line_bytes);
  std::vector<std::string> lines;
  const auto collect = [&](std::string_view line) { lines.emplace_back(line); };
  for (const auto& piece : pieces) buffer.feed(piece, collect);
  buffer.finish(collect);
  return lines;
}

using Lines = std::vector<std::string>;

TEST(LineBuffer, JoinsPiecesAndKeepsEmptyLines) {
  EXPECT_EQ(lines_of({"a", "b\n\nc", "", "\n"}), (Lines{"ab", "", "c"}));
  EXPECT_EQ(lines_of({"no end"}), Lines{"no end"});
  EXPECT_EQ(lines_of({}), Lines{});
}

TEST(LineBuffer, DropsWhatACarriageReturnOverwrites) {
  EXPECT_EQ(lines_of({"10%\r20%\r30%\n"}), Lines{"30%"});
  EXPECT_EQ(lines_of({"\r10%", "\r20%", "\r", "30%"}), Lines{"30%"});
  EXPECT_EQ(lines_of({"dos\r\n", "split\r", "\n"}), (Lines{"dos", "split"}));
}

TEST(LineBuffer, KeepsBytesThatAreNoText) {
  const std::string binary("\0\x01\xff\n\xfe\0", 6);
  EXPECT_EQ(lines_of({binary}), (Lines{std::string("\0\x01\xff", 3), std::string("\xfe\0", 2)}));
}

TEST(LineBuffer, CutsLinesWithoutEnd) {
  EXPECT_EQ(lines_of({"abcdefg\nh"}, 3), (Lines{"abc", "def", "g", "h"}));
  EXPECT_EQ(lines_of({"abc\n"}, 3), (Lines{"abc"}));
  EXPECT_EQ(lines_of({"ab", "cd"}, 3), (Lines{"abc", "d"}));
}

TEST(LineBuffer, DoesNotCutAProgressBar) {
  std::vector<std::string> pieces;
  for (int i = 0; i < 100; ++i) pieces.push_back("\rstep " + std::to_string(i));
  EXPECT_EQ(lines_of(pieces, 20), Lines{"step 99"});
}

TEST(LastLines, KeepTheLastAndCutLongOnes) {
  LastLines last(2);
  EXPECT_TRUE(last.lines().empty());
  for (const char* line : {"1", "2", "3"}) last.add(line);
  EXPECT_EQ(last.lines(), (std::deque<std::string>{"2", "3"}));
  last.add(std::string(1 << 20, 'x'));
  EXPECT_LT(last.lines().back().size(), LastLines::kMaxBytes + 50);
}

TEST(Spawn, NamesAProgramThatDoesNotExist) {
  try {
    (void)spawn({.command = {"/nonexistent/program"}});
    FAIL() << "no exception";
  } catch (const SystemError& error) {
    EXPECT_NE(std::string(error.what()).find("cannot start /nonexistent/program: No such file"), std::string::npos)
        << error.what();
  }
}

TEST(EndDescendants, EndsChildrenAndGrandchildren) {
  become_subreaper();
  EXPECT_EQ(end_descendants(0), 0U);
  (void)spawn({.command = {"/bin/sh", "-c", "trap '' TERM; sleep 100 & setsid sleep 100 & wait"}});
  while (descendants().size() < 3) {
  }
  EXPECT_GE(end_descendants(0.05), 3U);
  EXPECT_TRUE(descendants().empty());
}

TEST(SignalName, HasTheUsualNames) {
  EXPECT_EQ(signal_name(9), "SIGKILL");
  EXPECT_EQ(signal_name(11), "SIGSEGV");
  EXPECT_EQ(signal_name(200), "signal 200");
}

}  // namespace
}  // namespace hydrofoil::launcher
