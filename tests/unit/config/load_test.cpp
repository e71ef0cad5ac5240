#include "hydrofoil/config/load.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "hydrofoil/base/error.h"

namespace hydrofoil::config {
namespace {

class Load : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = std::filesystem::path(testing::TempDir()) / ("hydrofoil_load_" + std::to_string(::getpid()));
    std::filesystem::create_directories(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::string write(const std::string& name, const std::string& text) const {
    const auto path = directory_ / name;
    std::ofstream(path, std::ios::binary) << text;
    return path.string();
  }
  static std::string error_of(std::string_view text) {
    try {
      (void)load_config(text);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  std::filesystem::path directory_;
};

TEST_F(Load, ReadsAFile) {
  const auto path = write("ds_config.json", "{\"a\": 1} # end\n");
  const auto loaded = load_config(path);
  EXPECT_EQ(loaded.root.find("a")->integer, 1);
  EXPECT_EQ(loaded.source, path);
}

TEST_F(Load, ReadsText) {
  EXPECT_EQ(load_config("{\"a\": 1}").root.find("a")->integer, 1);
  EXPECT_EQ(load_config("\n// comment\n{\"a\": 1}").source, "config text");
}

TEST_F(Load, ReadsBase64OfBothAlphabetsWithAndWithoutPadding) {
  // {"a": ">>>???"}
  for (const char* text : {"eyJhIjogIj4+Pj8/PyJ9", "eyJhIjogIj4-Pj8_PyJ9"}) {
    EXPECT_EQ(load_config(text).root.find("a")->text, ">>>???") << text;
  }
  for (const char* text : {"eyJhIjoxMH0=", "eyJhIjoxMH0", "eyJhIjoxMH0=\n"}) {  // {"a":10}
    EXPECT_EQ(load_config(text).root.find("a")->integer, 10) << text;
  }
}

TEST_F(Load, RefusesWhatIsNoConfig) {
  EXPECT_NE(error_of("no_such_file.json").find("no such file"), std::string::npos);
  EXPECT_NE(error_of("").find("empty string"), std::string::npos);
  EXPECT_NE(error_of("aGVsbG8=").find("no such file"), std::string::npos);  // "hello"
  EXPECT_NE(error_of("eyJhIjoxMH0==").find("no such file"), std::string::npos);
  EXPECT_NE(error_of("[1]").find("got a list of 1, expected an object"), std::string::npos);
  EXPECT_NE(error_of(directory_.string()).find("is a directory"), std::string::npos);
  EXPECT_NE(error_of(write("empty.json", "")).find("the text is empty"), std::string::npos);
  EXPECT_NE(error_of(write("bad.json", "{\n x")).find("bad.json:2:2: "), std::string::npos);
  EXPECT_NE(error_of(write("list.json", "[]")).find("expected an object"), std::string::npos);
  EXPECT_LT(error_of(std::string(1 << 20, 'A')).size(), 1000u);
}

TEST_F(Load, RefusesTextOverItsLimit) {
  EXPECT_NE(error_of("{" + std::string(kMaxConfigBytes, ' ')).find("expected at most"), std::string::npos);
}

}  // namespace
}  // namespace hydrofoil::config
