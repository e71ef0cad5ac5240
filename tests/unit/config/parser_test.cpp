#include "hydrofoil/config/parser.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>

#include "hydrofoil/base/error.h"

namespace hydrofoil::config {
namespace {

Value parse(std::string_view text) { return parse_json(text, "test"); }

std::string error_of(std::string_view text) {
  try {
    parse(text);
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "no error";
}

void expect_error(std::string_view text, std::string_view part) {
  const std::string message = error_of(text);
  EXPECT_NE(message.find(part), std::string::npos) << "text: " << text.substr(0, 80) << "\nmessage: " << message;
}

TEST(Parser, ReadsEveryKindOfValue) {
  const Value root = parse(R"({"a": 1, "b": -2.5e3, "c": "x", "d": [true, false, null], "e": {}, "f": []})");
  EXPECT_EQ(root.find("a")->integer, 1);
  EXPECT_EQ(root.find("b")->real, -2500.0);
  EXPECT_EQ(root.find("c")->text, "x");
  EXPECT_EQ(root.find("d")->items.size(), 3u);
  EXPECT_TRUE(root.find("d")->items[2].is(ValueKind::kNull));
  EXPECT_TRUE(root.find("e")->is(ValueKind::kObject));
  EXPECT_TRUE(root.find("f")->is(ValueKind::kArray));
  EXPECT_EQ(root.find("none"), nullptr);
}

TEST(Parser, AcceptsCommentsTrailingCommasAndCommentKeys) {
  const Value root = parse(
      "# one\n{ // two\n \"a\": 1, /* three\n */ \"_comment\": \"x\", \"_comment_b\": [1],\n\"c\": [1, 2,],\n}\n// "
      "end");
  ASSERT_EQ(root.members.size(), 2u);
  EXPECT_EQ(root.members[0].key, "a");
  EXPECT_EQ(root.find("c")->items.size(), 2u);
}

TEST(Parser, KeepsMarksOfCommentsInsideStrings) {
  EXPECT_EQ(parse(R"({"a": "http://x/#y/*z*/"})").find("a")->text, "http://x/#y/*z*/");
}

TEST(Parser, KeepsWholeNumbersExact) {
  EXPECT_EQ(parse("[9223372036854775807]").items[0].integer, INT64_MAX);
  EXPECT_EQ(parse("[-9223372036854775808]").items[0].integer, INT64_MIN);
  EXPECT_TRUE(parse("[9223372036854775808]").items[0].is(ValueKind::kReal));
  EXPECT_TRUE(parse("[5e8]").items[0].is(ValueKind::kReal));
}

TEST(Parser, ReadsInfinity) {
  for (const char* text : {"[Infinity]", "[inf]", "[+inf]"}) EXPECT_EQ(parse(text).items[0].real, INFINITY) << text;
  for (const char* text : {"[-Infinity]", "[-inf]"}) EXPECT_EQ(parse(text).items[0].real, -INFINITY) << text;
}

TEST(Parser, ReadsEscapesAndUnicode) {
  EXPECT_EQ(parse(R"(["\n\t\"\\\/\u00e9\ud83d\ude00"])").items[0].text, "\n\t\"\\/\xC3\xA9\xF0\x9F\x98\x80");
  EXPECT_EQ(parse("\xEF\xBB\xBF[1]").items[0].integer, 1);
}

TEST(Parser, NamesLineAndColumn) {
  expect_error("{\n  \"a\": 1,\n  \"b\": x\n}", "test:3:8: b: ");
  expect_error("{\"a\": [1, {\"b\": }]}", "test:1:17: a[1].b: expected a value");
  expect_error("{\"\xC3\xA9\xC3\xA9\": @}", "test:1:8: ");
}

TEST(Parser, RefusesOtherLibertiesOfHjsonByName) {
  for (const char* text : {"{a: 1}", "{'a': 1}", "{\"a\": 'x'}", "{\"a\": text}", "{\"a\": '''x'''}",
                           "{\"a\": 1\n\"b\": 2}", "\"a\": 1", "{\"a\": 5 apples", "{\"a\": 12cores}"}) {
    const std::string message = error_of(text);
    if (std::string_view(text).find("apples") != std::string_view::npos) {
      EXPECT_NE(message.find("expected ',' or '}'"), std::string::npos) << message;
    } else {
      EXPECT_NE(message.find("liberty of HJSON"), std::string::npos) << text << "\n" << message;
    }
  }
}

TEST(Parser, RefusesDuplicateKeysWithTheirPath) {
  expect_error("{\"z\": {\"stage\": 1,\n \"stage\": 2}}",
               "test:2:2: z.stage: duplicate key, given first at line 1, column 8");
  expect_error(R"({"a": [{"b": 1, "b": 1}]})", "a[0].b: duplicate key");
  expect_error(R"({"_comment": 1, "_comment": 2})", "_comment: duplicate key");
  expect_error(R"({"a": 1, "\u0061": 2})", "a: duplicate key");
}

TEST(Parser, RefusesNanAndNumbersOutOfRange) {
  expect_error(R"({"a": NaN})", "a: NaN is not a value");
  expect_error("[nan]", "NaN is not a value");
  expect_error("[1e999]", "out of range");
  for (const char* text : {"[01]", "[1.]", "[.5]", "[+1]", "[1e]", "[--1]", "[1.2.3]", "[-]"}) {
    expect_error(text, "is not a JSON number");
  }
}

TEST(Parser, RefusesBrokenText) {
  expect_error("", "the text is empty");
  expect_error("  # only a comment", "the text is empty");
  expect_error("{", "never closed");
  expect_error("{\"a\": [1, 2", "the list [ is never closed");
  expect_error("{\"a\": 1", "the object { is never closed");
  expect_error("{\"a\" 1}", "expected ':'");
  expect_error("{\"a\":", "unexpected end of the text");
  expect_error("{1: 2}", "expected a key");
  expect_error("[1 2]", "expected ',' or ']'");
  expect_error("[1] 2", "after the end");
  expect_error("/* x", "never closed");
  expect_error("[\"x", "never closed");
  expect_error("[\"x\\", "never closed");
  expect_error("[\"x\ny\"]", "not closed before the end of its line");
  expect_error(std::string_view("[\"\x01\"]"), "control character");
  expect_error("[\"\\q\"]", "unknown escape");
  expect_error("[\"\\u12g4\"]", "hexadecimal");
  expect_error("[\"\\u12\"]", "hexadecimal");
  expect_error("[\"\\ud800x\"]", "surrogate");
  expect_error("[\"\\udc00\"]", "surrogate");
  expect_error("[\"\\ud800\\u0041\"]", "surrogate");
  expect_error("[\"\xFF\"]", "UTF-8");
  expect_error("[\"\xC0\xAF\"]", "UTF-8");
  expect_error("[True]", "is Python, expected true");
  expect_error("[None]", "is Python, expected null");
}

TEST(Parser, BoundsNesting) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_NO_THROW(parse(nested(kMaxDepth)));
  expect_error(nested(kMaxDepth + 1), "nesting is deeper than 100 levels");
}

TEST(Parser, EndsInBoundedTimeOnTenMegabytes) {
  const auto start = std::chrono::steady_clock::now();
  constexpr size_t kSize = 10 << 20;
  expect_error(std::string(kSize, '['), "nesting is deeper");
  std::string objects;
  while (objects.size() < kSize) objects += "{\"a\":";
  expect_error(objects, "nesting is deeper");
  expect_error("/*" + std::string(kSize, '*'), "never closed");
  expect_error("[\"" + std::string(kSize, 'x'), "never closed");
  expect_error("{\"" + std::string(kSize, 'x') + "\": @}", "expected a value");
  std::string members = "{";
  for (int i = 0; members.size() < kSize / 8; ++i) members += "\"k" + std::to_string(i) + "\":1,";
  EXPECT_NO_THROW(parse(members + "}"));
  expect_error(members + "\"k7\":1}", "k7: duplicate key");
  EXPECT_LT(error_of("{\"" + std::string(kSize, 'x') + "\": @}").size(), 1000u);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
}

TEST(Value, WritesJsonThatReadsBack) {
  const std::string text = R"({"a": [1, 0.001, "x\"y", null, true], "b": {"c": Infinity}})";
  EXPECT_EQ(to_json(parse(text)), text);
}

TEST(Value, QuotesAndCutsAtACharacter) {
  EXPECT_EQ(quote("a\"\n\x01"), "\"a\\\"\\n\\u0001\"");
  EXPECT_EQ(quote("\xC3\xA9\xC3\xA9", 3), "\"\xC3\xA9...\"");
}

}  // namespace
}  // namespace hydrofoil::config
