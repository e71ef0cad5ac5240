#include "hydrofoil/plan/page.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "hydrofoil/base/error.h"
#include "hydrofoil/storage/file.h"

namespace hydrofoil::plan {
namespace {

constexpr const char* kEvil = "</script><script>\"'&\xff";

Plan plan_of(const std::string& name) {
  ModelSpec spec;
  spec.modules.push_back({.path = "", .type_name = "Model"});
  spec.modules.push_back({.path = name, .type_name = "Linear", .parent = 0, .parameters = {0}});
  spec.parameters.push_back({name + ".weight", 4096});
  spec.costs.resize(2);
  spec.costs[1] = {.saved_bytes = 100, .forward = {.product_flops = 1e6}, .backward = {.product_flops = 2e6}};
  Settings settings;
  settings.stage = 3;
  settings.world_size = settings.num_nodes = 2;
  settings.accumulation_steps = 5;
  return make_plan(spec, settings);
}

std::string data_of(const std::string& html) {
  const std::string begin = "id=\"plan-data\">";
  const size_t at = html.find(begin) + begin.size();
  return html.substr(at, html.find("</script>", at) - at);
}

TEST(Page, HoldsTheTimeline) {
  const Plan plan = plan_of("layer");
  const auto data = nlohmann::json::parse(data_of(to_html(plan, 1 << 20)));
  EXPECT_EQ(data["events"].size(), plan.timeline.events.size());
  EXPECT_EQ(data["memory"].size(), plan.timeline.memory.size());
  EXPECT_EQ(data["peak"]["bytes"], plan.peak.bytes);
  EXPECT_EQ(data["limit"], 1 << 20);
  EXPECT_EQ(data["gap"]["count"], 3);
  EXPECT_TRUE(nlohmann::json::parse(data_of(to_html(plan)))["limit"].is_null());
  EXPECT_FALSE(data.contains("scaling"));
}

TEST(Page, SaysWhatDoesNotFit) {
  const Plan plan = plan_of("layer");
  EXPECT_EQ(to_html(plan, plan.peak.bytes).find("does not fit"), std::string::npos);
  EXPECT_NE(to_html(plan, plan.peak.bytes - 1).find("does not fit"), std::string::npos);
}

TEST(Page, EscapesNames) {
  const std::string html = to_html(plan_of(kEvil));
  EXPECT_EQ(html.find("</script><script>\""), std::string::npos);
  EXPECT_NE(html.find("&lt;/script&gt;&lt;script&gt;&quot;&#39;&amp;"), std::string::npos);
  const auto data = nlohmann::json::parse(data_of(html));
  EXPECT_EQ(data["units"][0].get<std::string>().rfind("</script><script>\"'&", 0), 0U);
  EXPECT_EQ(data_of(html).find('<'), std::string::npos);
}

TEST(Page, ReplacesPagesAlone) {
  const std::string directory = ::testing::TempDir() + "page_test";
  std::filesystem::remove_all(directory);
  std::filesystem::create_directory(directory);
  const std::string path = directory + "/plan.html";
  const std::string html = to_html(plan_of("layer"));
  write_page(path, std::string(kPageStart) + "older");
  write_page(path, html);
  EXPECT_EQ(storage::read_file(path, 1 << 20), html);
  for (const std::string other : {"", "<!doctype html>\n<p>"}) {
    storage::write_file_atomically(path, other);
    EXPECT_THROW(write_page(path, html), InvalidArgument);
    EXPECT_EQ(storage::read_file(path, 1 << 20), other);
  }
  EXPECT_THROW(write_page(directory, html), SystemError);
  EXPECT_THROW(write_page(directory + "/missing/plan.html", html), SystemError);
}

}  // namespace
}  // namespace hydrofoil::plan
