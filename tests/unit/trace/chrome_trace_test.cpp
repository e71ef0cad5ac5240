#include "hydrofoil/trace/chrome_trace.h"

#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "hydrofoil/base/error.h"
#include "hydrofoil/trace/recorder.h"
#include "hydrofoil/trace/summary.h"

namespace hydrofoil::trace {
namespace {

using Json = nlohmann::json;

std::vector<Json> slices(const std::string& text) {
  std::vector<Json> result;
  const Json root = Json::parse(text);
  for (const Json& event : root.at("traceEvents")) {
    if (event.at("ph") == "X") result.push_back(event);
  }
  return result;
}

TEST(ChromeTrace, HasOneProcessARankAndMicrosecondsFromTheOrigin) {
  const std::string text =
      chrome_trace({rank_lines({{Lane::kCompute, "forward", "layers.\"0\"", 5000, 7500, 0}}, 0, 4000),
                    rank_lines({{Lane::kGather, "all_gather", "", 4000, 4001, 64}}, 1, 4000)});
  const auto events = slices(text);
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[0].at("name"), "forward layers.\"0\"");
  EXPECT_EQ(events[0].at("pid"), 0);
  EXPECT_EQ(events[0].at("tid"), static_cast<int>(Lane::kCompute));
  EXPECT_DOUBLE_EQ(events[0].at("ts"), 1.0);
  EXPECT_DOUBLE_EQ(events[0].at("dur"), 2.5);
  EXPECT_EQ(events[1].at("name"), "all_gather");
  EXPECT_EQ(events[1].at("pid"), 1);
  EXPECT_EQ(events[1].at("args").at("bytes"), 64);
}

TEST(ChromeTrace, EndsAnEventWhereALaterOneOfItsLaneReachesBeyondIt) {
  // A unit's backward ends a little after the next one's has begun; what is nested stays as it is.
  const std::vector<Event> events = {{Lane::kCompute, "root", "", 0, 100, 0},
                                     {Lane::kCompute, "b", "1", 10, 52, 0},
                                     {Lane::kCompute, "wait", "", 20, 30, 0},
                                     {Lane::kCompute, "b", "0", 50, 90, 0},
                                     {Lane::kReduce, "reduce_scatter", "", 0, 60, 0}};
  std::map<std::string, std::pair<double, double>> found;
  for (const Json& event : slices(chrome_trace({rank_lines(events, 0, 0)}))) {
    found[event.at("name")] = {event.at("ts").get<double>() * 1e3, event.at("dur").get<double>() * 1e3};
  }
  EXPECT_NEAR(found["root"].second, 100, 1e-6);
  EXPECT_NEAR(found["b 1"].second, 40, 1e-6);
  EXPECT_NEAR(found["wait"].second, 10, 1e-6);
  EXPECT_NEAR(found["b 0"].second, 40, 1e-6);
  EXPECT_NEAR(found["reduce_scatter"].second, 60, 1e-6);
}

TEST(ChromeTrace, OfNothingIsStillAFile) { EXPECT_TRUE(Json::parse(chrome_trace({})).at("traceEvents").empty()); }

TEST(Recorder, KeepsWhatComesBetweenStartAndStop) {
  Recorder recorder;
  recorder.add({.what = "before"});
  recorder.start();
  EXPECT_TRUE(recorder.active());
  recorder.add({.what = "within"});
  const auto events = recorder.stop();
  recorder.add({.what = "after"});
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].what, "within");
  EXPECT_TRUE(recorder.stop().empty());
}

TEST(Summary, TakesOffWhatIsNested) {
  const std::string table =
      summarize(chrome_trace({rank_lines({{Lane::kStep, "step", "3", 0, 10'000'000, 0},
                                          {Lane::kStep, "optimizer step", "", 8'000'000, 10'000'000, 0},
                                          {Lane::kCompute, "forward", "(root)", 0, 4'000'000, 0},
                                          {Lane::kCompute, "gather wait", "a", 1'000'000, 2'000'000, 0}},
                                         0, 0)}),
                "t.json");
  const auto has = [&](const std::string& line) { return table.find(line) != std::string::npos; };
  EXPECT_TRUE(has("compute  forward                     1.0         3.000     30.0%")) << table;
  EXPECT_TRUE(has("compute  gather wait                 1.0         1.000     10.0%")) << table;
  EXPECT_TRUE(has("step     optimizer step              1.0         2.000     20.0%")) << table;
  EXPECT_TRUE(has("step     rest of the step            1.0         8.000     80.0%")) << table;
}

TEST(Summary, SumsUpNeighboursThatTouch) {  // 0.1 + 0.2 microseconds are more than 0.3 in floating point
  const std::string table = summarize(chrome_trace({rank_lines({{Lane::kStep, "step", "3", 0, 1'000, 0},
                                                                {Lane::kCompute, "forward", "(root)", 0, 1'000, 0},
                                                                {Lane::kCompute, "gather wait", "a", 100, 300, 0},
                                                                {Lane::kCompute, "release", "a", 300, 700, 0}},
                                                               0, 0)}),
                                      "t.json");
  EXPECT_NE(table.find("compute  forward                     1.0         0.000     40.0%"), std::string::npos) << table;
  EXPECT_NE(table.find("compute  gather wait                 1.0         0.000     20.0%"), std::string::npos) << table;
}

TEST(Summary, NamesWhatIsNoTrace) {
  const auto error_of = [](const std::string& text) -> std::string {
    try {
      (void)summarize(text, "t.json");
    } catch (const InvalidArgument& error) {
      return error.what();
    }
    return "";
  };
  const auto with_event = [](const std::string& event) { return R"({"traceEvents": [)" + event + "]}"; };
  EXPECT_NE(error_of("{").find("'t.json': invalid JSON"), std::string::npos);
  EXPECT_NE(error_of("[]").find("got no list traceEvents"), std::string::npos);
  EXPECT_NE(error_of(with_event("")).find("it has no events"), std::string::npos);
  EXPECT_NE(error_of(with_event("7")).find("traceEvents[0]: got a number"), std::string::npos);
  EXPECT_NE(error_of(with_event(R"({"ph": 1})")).find("traceEvents[0].ph: got 1, expected a string"),
            std::string::npos);
  EXPECT_NE(error_of(with_event(R"({"ph": "X", "ts": 0})")).find("dur: got nothing, expected a number"),
            std::string::npos);
  EXPECT_NE(error_of(with_event(R"({"ph": "X", "ts": 1e99})")).find("ts: got 1e+99, expected a number"),
            std::string::npos);
  EXPECT_NE(error_of(with_event(R"({"ph": "X", "ts": 0, "dur": 1, "pid": 0, "tid": 9, "cat": "x"})"))
                .find("tid: got 9, expected 0 to 3"),
            std::string::npos);
  EXPECT_NE(error_of(with_event(R"({"ph": "X", "ts": 0, "dur": 1, "pid": 1e99, "tid": 0, "cat": "x"})"))
                .find("expected an integer"),
            std::string::npos);
  EXPECT_NE(error_of(with_event(R"({"ph": "X", "ts": 0, "dur": 1, "pid": 0, "tid": 0, "cat": "x"})"))
                .find("rank 0 has no event of category step"),
            std::string::npos);
}

}  // namespace
}  // namespace hydrofoil::trace
