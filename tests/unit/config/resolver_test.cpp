#include "hydrofoil/config/resolver.h"

#include <gtest/gtest.h>

#include "hydrofoil/base/error.h"
#include "hydrofoil/config/coerce.h"
#include "hydrofoil/config/parser.h"
#include "hydrofoil/config/reference.h"

namespace hydrofoil::config {
namespace {

enum class Color { kRed, kBlue };

struct Inner {
  bool enabled = false;
  std::optional<int64_t> size;
};

struct Outer {
  int small = 3;
  int64_t count = 7;
  double rate = 0.5;
  bool flag = true;
  std::string name = "x";
  Color color = Color::kBlue;
  std::vector<std::string> names;
  std::vector<double> betas = {0.9, 0.999};
  std::optional<int64_t> period;
  Inner inner;
};

Section make_section(bool lax) {
  Section inner;
  inner.lax = lax;
  inner.fields = {field("enabled", &Inner::enabled, "on"), field("size", &Inner::size, "size").at_least(0)};
  Section off;
  off.activity = Activity::kBySwitch;
  off.fields = {later("enabled", false), later("depth", int64_t{1})};
  Section present;
  present.activity = Activity::kByPresence;
  present.fields = {later("depth", int64_t{1})};
  Field period = field("period", &Outer::period, "period").at_least(1);
  period.allows_infinity = true;
  Field betas = field("betas", &Outer::betas, "betas").range(0, 1);
  betas.length = 2;
  betas.below_maximum = true;
  const std::vector<std::pair<std::string, Color>> colors = {
      {"red", Color::kRed}, {"blue", Color::kBlue}, {"azure", Color::kBlue}};
  Section section;
  section.lax = lax;
  section.fields = {
      field("small", &Outer::small, "small"),
      field("count", &Outer::count, "count").range(0, 1e12).alias("number").old_name("num"),
      field("rate", &Outer::rate, "rate").above(0),
      field("flag", &Outer::flag, "flag"),
      field("name", &Outer::name, "name"),
      choice("color", &Outer::color, colors, "color"),
      field("names", &Outer::names, "names"),
      betas,
      period,
      nested("inner", &Outer::inner, inner),
      accepted("bucket", int64_t{5}, "nothing"),
      later("magic", false, "magic"),
      nested("off", off).later(),
      nested("present", present).later(),
  };
  return section;
}

struct Result {
  Outer outer;
  ResolvedTable table;
  std::vector<std::string> warnings;
};

Result resolve(const std::string& text, bool lax = false) {
  Result result;
  Resolver resolver("test", result.table);
  const Value root = parse_json(text, "test");
  resolver.resolve(make_section(lax), &root, &result.outer, "");
  result.warnings = resolver.warnings();
  return result;
}

void expect_error(const std::string& text, const std::string& part, bool lax = false) {
  try {
    resolve(text, lax);
    ADD_FAILURE() << text << " was accepted";
  } catch (const InvalidArgument& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(Resolver, TakesDefaultsFromTheStruct) {
  const Result result = resolve("{}");
  EXPECT_EQ(result.outer.count, 7);
  EXPECT_EQ(result.outer.color, Color::kBlue);
  EXPECT_EQ(result.table.find("count")->value, "7");
  EXPECT_EQ(result.table.find("count")->why, Why::kDefault);
  EXPECT_EQ(result.table.find("inner.size")->value, "none");
  EXPECT_EQ(result.table.find("magic"), nullptr);
}

TEST(Resolver, StoresWhatIsGiven) {
  const Result result = resolve(R"({"small": -1, "count": 5e8, "rate": 2, "flag": false, "name": "y", "color": "red",
                                    "names": ["a"], "betas": [0, 0.5], "period": 10, "inner": {"enabled": true, "size": 0}})");
  EXPECT_EQ(result.outer.small, -1);
  EXPECT_EQ(result.outer.count, 500000000);
  EXPECT_EQ(result.outer.rate, 2.0);
  EXPECT_FALSE(result.outer.flag);
  EXPECT_EQ(result.outer.name, "y");
  EXPECT_EQ(result.outer.color, Color::kRed);
  EXPECT_EQ(result.outer.names, std::vector<std::string>{"a"});
  EXPECT_EQ(result.outer.betas, (std::vector<double>{0.0, 0.5}));
  EXPECT_EQ(result.outer.period, 10);
  EXPECT_TRUE(result.outer.inner.enabled);
  EXPECT_EQ(result.outer.inner.size, 0);
  EXPECT_EQ(result.table.find("inner.size")->why, Why::kGiven);
}

TEST(Resolver, NullAndAutoTakeTheDefault) {
  const Result result = resolve(R"({"count": null, "rate": "auto", "color": "auto", "inner": null})");
  EXPECT_EQ(result.outer.count, 7);
  EXPECT_EQ(result.outer.rate, 0.5);
  EXPECT_EQ(result.table.find("count")->why, Why::kDefault);
  EXPECT_NE(result.table.find("count")->note.find("null means absent"), std::string::npos);
  EXPECT_EQ(result.table.find("rate")->why, Why::kAuto);
  EXPECT_EQ(result.table.find("rate")->value, "0.5");
  EXPECT_EQ(result.table.find("color")->why, Why::kAuto);
  EXPECT_EQ(resolve(R"({"inner": "auto"})").table.find("inner")->why, Why::kAuto);
}

TEST(Resolver, RequiredValuesAreNeverInvented) {
  Section section;
  section.fields = {field("count", &Outer::count, "count").needed("count them")};
  for (const char* text : {"{}", "{\"count\": null}", "{\"count\": \"auto\"}"}) {
    ResolvedTable table;
    Resolver resolver("test", table);
    Outer outer;
    const Value root = parse_json(text, "test");
    EXPECT_THROW(resolver.resolve(section, &root, &outer, "s"), InvalidArgument) << text;
  }
}

TEST(Resolver, InfinityMeansAbsentOnlyWhereAllowed) {
  const Result result = resolve(R"({"period": Infinity})");
  EXPECT_FALSE(result.outer.period.has_value());
  EXPECT_NE(result.table.find("period")->note.find("Infinity"), std::string::npos);
  expect_error(R"({"period": -Infinity})", "period: got -Infinity");
  expect_error(R"({"rate": Infinity})", "does not take Infinity");
  expect_error(R"({"count": inf})", "does not take Infinity");
}

TEST(Resolver, UnknownKeysNameTheNearest) {
  expect_error(R"({"cuont": 1})", "test:1:11: cuont: unknown key; the nearest valid name is \"count\"");
  expect_error(R"({"inner": {"sise": 1}})", "inner.sise: unknown key; the nearest valid name is \"size\"");
  expect_error(R"({"off": {"enabled": false, "dpeth": 1}})", "off.dpeth: unknown key");
  expect_error("{\"" + std::string(100000, 'x') + "\": 1}", "...: unknown key");
}

TEST(Resolver, WrongTypesAndRangesSayWhatIsExpected) {
  expect_error(R"({"count": "5"})",
               "got the string \"5\", expected an integer from 0 to 1000000000000 (write numbers without quotes)");
  expect_error(R"({"count": 1.5})", "count: got 1.5, expected an integer");
  expect_error(R"({"count": -1})", "count: got -1, expected an integer from 0");
  expect_error(R"({"count": true})", "count: got true");
  expect_error(R"({"count": 1e30})", "count: got 1e+30");
  expect_error(R"({"small": 3000000000})", "small: got 3000000000");
  expect_error(R"({"rate": 0})", "rate: got 0, expected a number > 0");
  expect_error(R"({"flag": 1})", "flag: got 1, expected true or false");
  expect_error(R"({"flag": "true"})", "write it without quotes");
  expect_error(R"({"name": 1})", "name: got 1, expected a string");
  expect_error(R"({"color": "rde"})", "expected one of red, blue, azure (nearest: red)");
  expect_error(R"({"names": "a"})", "expected a list of strings");
  expect_error(R"({"names": [1]})", "expected a list of strings");
  expect_error(R"({"betas": [0.9]})", "expected a list of 2 numbers, each >= 0 and < 1");
  expect_error(R"({"betas": [0.9, 1]})", "each >= 0 and < 1");
  expect_error(R"({"betas": [0.9, "x"]})", "expected a list of 2 numbers");
  expect_error(R"({"inner": 5})", "inner: got 5, expected an object");
  expect_error(R"({"inner": [1]})", "inner: got a list of 1, expected an object");
  expect_error(R"({"off": {"enabled": "x"}})", "off.enabled: got the string");
  expect_error(R"({"off": {"depth": "x"}})", "off.depth: got the string");
}

TEST(Resolver, LaxSectionsReadStringsAsPydantic) {
  const Result result =
      resolve(R"({"count": "500.0", "rate": "1e-3", "flag": "False", "inner": {"enabled": 1, "size": "8"}})", true);
  EXPECT_EQ(result.outer.count, 500);
  EXPECT_EQ(result.outer.rate, 1e-3);
  EXPECT_FALSE(result.outer.flag);
  EXPECT_TRUE(result.outer.inner.enabled);
  EXPECT_EQ(result.outer.inner.size, 8);
  for (const char* yes : {"true", "T", "yes", "Y", "on", "1"}) {
    EXPECT_TRUE(resolve("{\"flag\": \"" + std::string(yes) + "\"}", true).outer.flag) << yes;
  }
  expect_error(R"({"flag": "maybe"})", "expected true or false", true);
  expect_error(R"({"flag": 2})", "expected true or false", true);
  expect_error(R"({"count": "5e8"})", "expected an integer", true);
  expect_error(R"({"count": "x"})", "expected an integer", true);
  expect_error(R"({"rate": "1e-3x"})", "expected a number", true);
}

TEST(Resolver, AliasesAreSilentAndOldNamesWarnOnce) {
  const Result alias = resolve(R"({"number": 4})");
  EXPECT_EQ(alias.outer.count, 4);
  EXPECT_TRUE(alias.warnings.empty());
  EXPECT_NE(alias.table.find("count")->note.find("given as number"), std::string::npos);
  const Result old = resolve(R"({"num": 4})");
  EXPECT_EQ(old.outer.count, 4);
  ASSERT_EQ(old.warnings.size(), 1u);
  EXPECT_EQ(old.warnings[0], "num is deprecated, use count");
  expect_error(R"({"number": 4, "count": 4})", "count: given twice, as \"number\" too");
}

TEST(Resolver, OnlyActiveLaterFeaturesAreErrors) {
  EXPECT_NO_THROW(resolve(R"({"magic": false, "off": {"enabled": false, "depth": 9}, "present": {}})"));
  EXPECT_NO_THROW(resolve(R"({"magic": null, "off": null, "present": null})"));
  EXPECT_NO_THROW(resolve(R"({"off": {"depth": 9}})"));
  EXPECT_NO_THROW(resolve(R"({"off": {"enabled": "auto"}})"));
  expect_error(R"({"magic": true})", "magic: not yet supported, got true; only false is");
  expect_error(R"({"off": {"enabled": true}})", "off.enabled: not yet supported");
  expect_error(R"({"present": {"depth": 1}})", "present: not yet supported");
}

TEST(Resolver, AcceptedKeysAreExplained) {
  EXPECT_EQ(resolve(R"({"bucket": 6})").table.find("bucket")->note, "no effect here: nothing");
}

TEST(CheckRanges, CoversTheWholeStruct) {
  Outer outer;
  EXPECT_NO_THROW(check_ranges(make_section(false), &outer, "o"));
  outer.inner.size = -1;
  EXPECT_THROW(check_ranges(make_section(false), &outer, "o"), InvalidArgument);
}

TEST(ResolvedTable, DerivesWithoutHidingWhatWasGiven) {
  ResolvedTable table;
  table.add({"a", "1", Why::kDefault, ""});
  table.add({"b", "1", Why::kAuto, ""});
  table.add({"c", "1", Why::kGiven, ""});
  for (const char* path : {"a", "b", "c", "d"}) table.derive(path, int64_t{2}, "note");
  EXPECT_EQ(table.find("a")->why, Why::kDerived);
  EXPECT_EQ(table.find("b")->why, Why::kAuto);
  EXPECT_EQ(table.find("c")->why, Why::kGiven);
  EXPECT_EQ(table.find("d")->why, Why::kDerived);
  EXPECT_EQ(table.find("a")->value, "2");
}

TEST(ResolvedTable, AlignsItsColumns) {
  ResolvedTable table;
  table.add({"long.path", "1", Why::kGiven, "n"});
  table.add({"b", "22222", Why::kDefault, ""});
  EXPECT_EQ(table.to_text(),
            "key        value  why      note\n"
            "long.path  1      given    n\n"
            "b          22222  default\n");
}

TEST(Reference, ListsEveryKey) {
  const std::string text = section_markdown(make_section(false), "Title", "");
  for (const char* part :
       {"## Title", "| `count`, `number` | an integer from 0 to 1000000000000 | 7 |", "deprecated name: `num`",
        "## `inner`", "*not yet supported*", "Known keys: `enabled`, `depth`."}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  }
}

}  // namespace
}  // namespace hydrofoil::config
