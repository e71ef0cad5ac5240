#include "hydrofoil/storage/strict_json.h"

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "hydrofoil/base/error.h"

namespace hydrofoil::storage {

nlohmann::json parse_strict_json(std::string_view text, std::string_view function, std::string_view file,
                                 int max_depth) {
  using Json = nlohmann::json;
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const auto watch = [&](int depth, Json::parse_event_t event, Json& value) {
    switch (event) {
      case Json::parse_event_t::object_start:
        keys.emplace_back();
        [[fallthrough]];
      case Json::parse_event_t::array_start:
        HYDROFOIL_CHECK_ARG(depth < max_depth, function, "'", file, "': JSON nests deeper than ", max_depth, " levels");
        break;
      case Json::parse_event_t::object_end:
        keys.pop_back();
        break;
      case Json::parse_event_t::key:
        HYDROFOIL_CHECK_ARG(keys.back().insert(value.get_ref<const std::string&>()).second, function, "'", file,
                            "': duplicate key '", value.get_ref<const std::string&>(), "'");
        break;
      default:
        break;
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), watch);
  } catch (const Json::exception& error) {
    HYDROFOIL_CHECK_ARG(false, function, "'", file, "': invalid JSON: ", error.what());
  }
}

}  // namespace hydrofoil::storage
