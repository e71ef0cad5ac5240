#include "hydrofoil/checkpoint/manifest.h"

#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "hydrofoil/base/error.h"

namespace hydrofoil::checkpoint {
namespace {

using Json = nlohmann::json;

Manifest sample() {
  Manifest manifest;
  manifest.hydrofoil_version = "0.1.0";
  manifest.world_size = 2;
  manifest.scalars = {1, {{"model", "bf16"}}, {{"global_steps", -3}}, {{"s", "NaN"}}, "{}"};
  manifest.files = {{"r0", 100}, {"r1", 50}};
  manifest.tensors = {
      {"w", "master", {5}, storage::DType::kF32, {{"r0", "a", 0, 0, 3, 1}, {"r1", "b", 1, 3, 2, UINT64_MAX}}},
      {"e", "master", {0}, storage::DType::kBF16, {}}};
  return manifest;
}

std::string defect(const std::function<void(Json&)>& change) {
  Json json = Json::parse(manifest_to_json(sample()));
  change(json);
  try {
    validate_manifest(manifest_from_json(json.dump(), "m.json"), "m.json");
  } catch (const InvalidArgument& error) {
    EXPECT_NE(std::string(error.what()).find("m.json"), std::string::npos) << error.what();
    return error.what();
  }
  return "";
}

void expect_defect(const std::string& part, const std::function<void(Json&)>& change) {
  const std::string what = defect(change);
  EXPECT_NE(what.find(part), std::string::npos) << "got '" << what << "', expected '" << part << "'";
}

TEST(Manifest, GoesThroughJsonUnchanged) {
  EXPECT_EQ(manifest_from_json(manifest_to_json(sample()), "m"), sample());
  EXPECT_EQ(manifest_from_json(manifest_to_json(Manifest()), "m"), Manifest());
  EXPECT_EQ(defect([](Json&) {}), "");
}

TEST(Manifest, UnknownVersionNamesBoth) {
  expect_defect("got 2 (written by Hydrofoil 9.9), expected 1", [](Json& json) {
    json["format_version"] = 2;
    json["hydrofoil_version"] = "9.9";
  });
  expect_defect("format: got 'x'", [](Json& json) { json["format"] = "x"; });
}

TEST(Manifest, EveryFieldMustBeThere) {
  const Json whole = Json::parse(manifest_to_json(sample()));
  for (const auto& [key, value] : whole.items()) {
    expect_defect(key, [&, &key = key](Json& json) { json.erase(key); });
    expect_defect(key, [&, &key = key](Json& json) { json[key] = nullptr; });
  }
  for (const auto& [key, value] : whole["tensors"][0].items()) {
    expect_defect("tensors[0]." + key, [&, &key = key](Json& json) { json["tensors"][0].erase(key); });
    expect_defect("tensors[0]." + key, [&, &key = key](Json& json) { json["tensors"][0][key] = true; });
  }
  for (const auto& [key, value] : whole["tensors"][0]["pieces"][1].items()) {
    const std::string place = "tensors[0].pieces[1]." + key;
    expect_defect(place, [&, &key = key](Json& json) { json["tensors"][0]["pieces"][1].erase(key); });
    expect_defect(place, [&, &key = key](Json& json) { json["tensors"][0]["pieces"][1][key] = 1.5; });
  }
}

TEST(Manifest, NumbersStayInTheirRange) {
  expect_defect("world_size: got 0", [](Json& json) { json["world_size"] = 0; });
  expect_defect("world_size", [](Json& json) { json["world_size"] = int64_t{1} << 31; });
  expect_defect("stage: got 4", [](Json& json) { json["stage"] = 4; });
  expect_defect("counters", [](Json& json) { json["counters"]["x"] = UINT64_MAX; });
  expect_defect("shape: got -1", [](Json& json) { json["tensors"][0]["shape"][0] = -1; });
  expect_defect("numel: got 0", [](Json& json) { json["tensors"][0]["pieces"][0]["numel"] = 0; });
  expect_defect("over 2^63 - 1", [](Json& json) { json["tensors"][0]["shape"] = {INT64_MAX, 2}; });
  expect_defect("over 2^63 - 1", [](Json& json) { json["tensors"][0]["shape"] = {INT64_MAX / 2}; });
  expect_defect("must not overlap", [](Json& json) { json["tensors"][0]["pieces"][1]["numel"] = INT64_MAX; });
}

TEST(Manifest, PiecesTileTheTensor) {
  expect_defect("some rank's piece is missing", [](Json& json) { json["tensors"][0]["pieces"].erase(1); });
  expect_defect("starts at 0", [](Json& json) { json["tensors"][0]["pieces"].erase(0); });
  expect_defect("starts at 3", [](Json& json) { json["tensors"][0]["pieces"][1]["offset"] = 2; });
  expect_defect("starts at 3", [](Json& json) { json["tensors"][0]["pieces"][1]["offset"] = 4; });
  expect_defect("within its 0 elements",
                [](Json& json) { json["tensors"][1]["pieces"] = json["tensors"][0]["pieces"]; });
}

TEST(Manifest, NamesAreUniqueAndPlain) {
  for (const char* name : {"", ".", "..", "/etc/passwd", "a/b"}) {
    expect_defect("without directories", [&](Json& json) { json["files"][0]["name"] = name; });
  }
  expect_defect("duplicate file", [](Json& json) { json["files"][0]["name"] = "r1"; });
  expect_defect("not in the list", [](Json& json) { json["files"].erase(0); });
  expect_defect("duplicate tensor", [](Json& json) { json["tensors"][1]["parameter"] = "w"; });
  expect_defect("used twice", [](Json& json) {
    json["tensors"][0]["pieces"][1]["file"] = "r0";
    json["tensors"][0]["pieces"][1]["tensor"] = "a";
  });
  expect_defect("got rank 2", [](Json& json) { json["tensors"][0]["pieces"][1]["rank"] = 2; });
  expect_defect("checksum", [](Json& json) { json["tensors"][0]["pieces"][1]["checksum"] = "xxh3:1"; });
  expect_defect("dtype", [](Json& json) { json["tensors"][0]["dtype"] = "F8"; });
}

TEST(Manifest, EveryTruncationAndFlipIsAnErrorOrParses) {
  const std::string whole = manifest_to_json(sample());
  for (size_t size = 0; size + 2 < whole.size(); ++size) {  // the last bytes are "}\n"
    EXPECT_THROW((void)manifest_from_json(std::string_view(whole).substr(0, size), "m"), InvalidArgument) << size;
  }
  for (size_t i = 0; i < whole.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = whole;
      damaged[i] = static_cast<char>(damaged[i] ^ (1 << bit));
      try {
        validate_manifest(manifest_from_json(damaged, "m"), "m");
      } catch (const InvalidArgument&) {
      }
    }
  }
}

TEST(MergeManifests, SortsPiecesAndKeepsTheOrderOfTensors) {
  Manifest first = sample();
  Manifest second = sample();
  first.files = {{"r0", 100}};
  second.files = {{"r1", 50}};
  first.tensors[0].pieces = {{"r0", "a", 0, 3, 2, 1}};
  second.tensors[0].pieces = {{"r1", "b", 1, 0, 3, 2}};
  second.tensors.push_back({"z", "master", {1}, storage::DType::kF32, {{"r1", "c", 1, 0, 1, 3}}});
  const Manifest merged = merge_manifests({first, second});
  EXPECT_NO_THROW(validate_manifest(merged, "m"));
  ASSERT_EQ(merged.tensors.size(), 3u);
  EXPECT_EQ(merged.tensors[0].pieces[0].file, "r1");
  EXPECT_EQ(merged.tensors[2].parameter, "z");
  EXPECT_EQ(merged.files.size(), 2u);
}

TEST(MergeManifests, RanksMustAgree) {
  Manifest other = sample();
  other.tensors[0].shape = {6};
  EXPECT_THROW((void)merge_manifests({sample(), other}), InvalidArgument);
  other = sample();
  other.tensors[0].dtype = storage::DType::kF64;
  EXPECT_THROW((void)merge_manifests({sample(), other}), InvalidArgument);
}

TEST(ManifestToJson, RefusesTextThatIsNotUtf8) {
  Manifest manifest = sample();
  manifest.scalars.client_state = "\xff";
  EXPECT_THROW((void)manifest_to_json(manifest), InvalidArgument);
}

}  // namespace
}  // namespace hydrofoil::checkpoint
