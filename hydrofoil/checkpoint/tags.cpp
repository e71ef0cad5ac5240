#include "hydrofoil/checkpoint/tags.h"

#include <algorithm>
#include <filesystem>

#include "hydrofoil/base/error.h"
#include "hydrofoil/base/nearest.h"
#include "hydrofoil/checkpoint/manifest.h"
#include "hydrofoil/storage/atomic_directory.h"
#include "hydrofoil/storage/file.h"

namespace hydrofoil::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFunction = "load_checkpoint";
constexpr int64_t kMaxLatestBytes = 4096;
constexpr size_t kMaxTagBytes = 200;

bool is_tag(const std::string& tag) {
  const bool clean =
      std::all_of(tag.begin(), tag.end(), [](unsigned char c) { return c >= 32 && c != 127 && c != '/'; });
  return clean && !tag.empty() && tag.size() <= kMaxTagBytes && tag[0] != '.' && tag != kLatestName;
}

bool has_manifest(const std::string& directory) {
  std::error_code ignored;  // what cannot be inspected is no checkpoint that could be loaded
  return fs::is_regular_file(storage::AtomicDirectory::committed_path(directory) + "/" + kManifestName, ignored);
}

std::string what_there_is(const std::string& directory, const std::string& wanted) {
  std::error_code ignored;
  if (!fs::is_directory(directory, ignored)) return "the directory does not exist";
  const std::vector<std::string> tags = list_tags(directory);
  if (tags.empty()) return "it holds no checkpoint";
  std::string text = "the tags that exist are";
  for (const std::string& tag : tags) text += detail::concat(tag == tags.front() ? " '" : ", '", tag, "'");
  return wanted.empty() ? text : detail::concat(text, "; the nearest is '", nearest_name(wanted, tags), "'");
}

}  // namespace

void check_tag(const std::string& tag) {
  HYDROFOIL_CHECK_ARG(is_tag(tag), "checkpoint", "tag: got '", tag, "', expected 1 to ", kMaxTagBytes,
                      " characters without '/' or control characters, not 'latest', no '.' in front");
}

std::vector<std::string> list_tags(const std::string& directory) {
  std::vector<std::string> tags = storage::committed_directories(directory);
  std::erase_if(tags, [&](const std::string& name) { return !is_tag(name) || !has_manifest(directory + "/" + name); });
  return tags;
}

std::optional<std::string> latest_tag(const std::string& directory) {
  const std::string path = directory + "/" + kLatestName;
  std::error_code error;
  if (!fs::exists(path, error)) return std::nullopt;
  std::string tag = storage::read_file(path, kMaxLatestBytes);
  while (!tag.empty() && (tag.back() == '\n' || tag.back() == '\r' || tag.back() == ' ')) tag.pop_back();
  HYDROFOIL_CHECK_ARG(is_tag(tag), kFunction, "'", path, "': got '", tag, "', expected the name of a checkpoint");
  return tag;
}

std::string find_checkpoint(const std::string& directory, const std::optional<std::string>& tag) {
  if (tag) check_tag(*tag);
  const std::optional<std::string> wanted = tag ? tag : latest_tag(directory);
  HYDROFOIL_CHECK_ARG(wanted.has_value(), kFunction, "'", directory, "': no file '", kLatestName,
                      "' and no tag given; ", what_there_is(directory, ""));
  HYDROFOIL_CHECK_ARG(has_manifest(directory + "/" + *wanted), kFunction, "'", directory, "': no checkpoint '", *wanted,
                      "'", tag ? "" : " (which 'latest' names)", "; ", what_there_is(directory, *wanted));
  return storage::AtomicDirectory::committed_path(directory + "/" + *wanted);
}

}  // namespace hydrofoil::checkpoint
