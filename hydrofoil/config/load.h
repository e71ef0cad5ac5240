#pragma once

#include <string>
#include <string_view>

#include "hydrofoil/config/value.h"

namespace hydrofoil::config {

// Largest config file or text, in bytes.
inline constexpr int64_t kMaxConfigBytes = int64_t{64} << 20;

struct LoadedConfig {
  Value root;          // an object
  std::string source;  // "ds_config.json", "config text" or "base64 config", for messages
};

// Reads a config from any of its forms: JSON text (it starts with '{'), the path of a file, or base64 (standard or
// urlsafe, padded or not) of JSON text.
//
// Throws InvalidArgument where it is none of these or not valid (see parse_json), SystemError where a file cannot be
// read.
[[nodiscard]] LoadedConfig load_config(std::string_view text_or_path);

}  // namespace hydrofoil::config
