#pragma once

#include <optional>
#include <string>
#include <vector>

namespace hydrofoil::checkpoint {

// Name of the file beside the tags' directories that holds the newest tag.
inline constexpr const char* kLatestName = "latest";

// Throws InvalidArgument unless `tag` can name a directory: 1 to 200 bytes without '/', control characters or a leading
// '.', and not "latest".
void check_tag(const std::string& tag);

// Tags of the whole checkpoints in `directory`, sorted; empty where it does not exist.
[[nodiscard]] std::vector<std::string> list_tags(const std::string& directory);

// Content of <directory>/latest; nullopt where there is none. Throws InvalidArgument where it is no tag.
[[nodiscard]] std::optional<std::string> latest_tag(const std::string& directory);

// Directory of the checkpoint `tag`, or of the latest one, whose manifest exists. Throws InvalidArgument that lists the
// tags that there are.
[[nodiscard]] std::string find_checkpoint(const std::string& directory, const std::optional<std::string>& tag);

}  // namespace hydrofoil::checkpoint
