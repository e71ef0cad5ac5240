#include "hydrofoil/storage/strict_json.h"

#include <nlohmann/json.hpp>
#include <string>
#include <unordered_set>
#include <vector>

#include "hydrofoil/base/error.h"

namespace hydrofoil::storage {
namespace {

using Json = nlohmann::json;

// The parser's callback would do, but with one nlohmann walks the whole parent at the end of every object: a header of
// 100,000 tensors then takes minutes.
class Checker final : public nlohmann::json_sax<Json> {
 public:
  Checker(std::string_view function, std::string_view file, int max_depth)
      : function_(function), file_(file), max_depth_(max_depth) {}

  bool key(string_t& name) override {
    HYDROFOIL_CHECK_ARG(keys_.back().insert(name).second, function_, "'", file_, "': duplicate key '", name, "'");
    return true;
  }
  bool start_object(std::size_t) override {
    keys_.emplace_back();
    return enter();
  }
  bool end_object() override {
    keys_.pop_back();
    --depth_;
    return true;
  }
  bool start_array(std::size_t) override { return enter(); }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool parse_error(std::size_t, const std::string&, const Json::exception&) override { return false; }

 private:
  bool enter() {
    HYDROFOIL_CHECK_ARG(depth_ < max_depth_, function_, "'", file_, "': JSON nests deeper than ", max_depth_,
                        " levels");
    ++depth_;
    return true;
  }

  std::string_view function_;
  std::string_view file_;
  int max_depth_;
  int depth_ = 0;
  std::vector<std::unordered_set<std::string>> keys_;  // of the objects that are open
};

}  // namespace

Json parse_strict_json(std::string_view text, std::string_view function, std::string_view file, int max_depth) {
  Checker checker(function, file, max_depth);
  Json::sax_parse(text.begin(), text.end(), &checker);  // a syntax error is named below
  try {
    return Json::parse(text.begin(), text.end());
  } catch (const Json::exception& error) {
    HYDROFOIL_CHECK_ARG(false, function, "'", file, "': invalid JSON: ", error.what());
  }
}

}  // namespace hydrofoil::storage
