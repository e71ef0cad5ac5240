#include "hydrofoil/data/corpus.h"

#include <algorithm>
#include <filesystem>
#include <optional>

#include "hydrofoil/base/error.h"

namespace hydrofoil::data {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFunction = "load_corpus";

bool is_hidden(const fs::path& path) { return path.filename().native().starts_with('.'); }

// Regular files below a folder, sorted by path. Links to files count, links to folders are not followed.
std::vector<std::string> files_below(const std::string& folder) {
  std::vector<fs::path> found;
  try {
    for (fs::recursive_directory_iterator at(folder), end; at != end; ++at) {
      if (!is_hidden(at->path())) {
        std::error_code broken_link;
        if (at->is_regular_file(broken_link)) found.push_back(at->path());
      } else if (at->is_directory() && !at->is_symlink()) {
        at.disable_recursion_pending();
      }
    }
  } catch (const fs::filesystem_error& error) {
    throw_system_error(kFunction, detail::concat("cannot read the folder '", error.path1().string(), "'"),
                       error.code().value());
  }
  std::sort(found.begin(), found.end());  // component by component
  return {found.begin(), found.end()};
}

struct Found {
  std::vector<TokenRange> files;
  int64_t num_skipped = 0;
};

void add_folder(const std::string& folder, Found& found) {
  for (const std::string& path : files_below(folder)) {
    if (!is_npy_path(path)) {
      if (storage::File::open(path).size() == 0) continue;
      if (!is_text_file(path)) {
        ++found.num_skipped;
        continue;
      }
    }
    found.files.push_back(describe_token_file(path));
  }
}

Found find_files(const std::vector<std::string>& paths) {
  Found found;
  for (const std::string& path : paths) {
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    HYDROFOIL_CHECK_ARG(fs::exists(status), kFunction, "'", path, "' does not exist (", error.message(),
                        "), expected a text file, a .npy file or a folder of them");
    if (!fs::is_directory(status)) {
      found.files.push_back(describe_token_file(path));
      continue;
    }
    const size_t num_before = found.files.size();
    const int64_t num_skipped_before = found.num_skipped;
    add_folder(path, found);
    HYDROFOIL_CHECK_ARG(found.files.size() > num_before, kFunction, "'", path, "' is ",
                        found.num_skipped > num_skipped_before ? "binary (its files hold zero bytes)" : "empty",
                        ", expected text files or .npy files in the folder");
  }
  return found;
}

// Text with a vocabulary's tokens in one stream would be nonsense that trains.
void check_one_kind(const std::vector<TokenRange>& files) {
  const bool first = is_npy_path(files[0].path);
  for (const TokenRange& file : files) {
    HYDROFOIL_CHECK_ARG(is_npy_path(file.path) == first, kFunction, "'", files[0].path, "' and '", file.path,
                        "': got text and pre-tokenised (.npy) files, expected one kind");
  }
}

struct Split {
  std::vector<TokenRange> train;
  std::vector<TokenRange> held_out;
};

Split split(const std::vector<TokenRange>& files) {
  Split result;
  const auto num_files = static_cast<int64_t>(files.size());
  if (num_files >= kHoldOutEvery) {
    for (int64_t i = 0; i < num_files; ++i) {
      (i % kHoldOutEvery == kHoldOutEvery - 1 ? result.held_out : result.train)
          .push_back(files[static_cast<size_t>(i)]);
    }
    return result;
  }
  for (const TokenRange& file : files) {
    TokenRange head = file;
    TokenRange tail = file;
    tail.num_tokens = file.num_tokens / kHoldOutEvery;
    head.num_tokens = file.num_tokens - tail.num_tokens;
    tail.byte_offset = file.byte_offset + head.num_tokens * token_bytes(file.type);
    result.train.push_back(head);
    result.held_out.push_back(tail);
  }
  return result;
}

std::string name_of(const std::vector<std::string>& paths) {
  return paths.size() == 1 ? paths[0] : detail::concat(paths[0], " and ", paths.size() - 1, " more");
}

}  // namespace

Corpus load_corpus(const std::vector<std::string>& paths, int64_t context, const TokenStreamOptions& options) {
  HYDROFOIL_CHECK_ARG(!paths.empty(), kFunction, "paths: got none, expected at least one file or folder");
  const Found found = find_files(paths);
  check_one_kind(found.files);
  Split parts = split(found.files);
  Corpus corpus{.name = name_of(paths),
                .train = TokenStream(std::move(parts.train), options),
                .held_out = TokenStream(std::move(parts.held_out), options),
                .num_skipped = found.num_skipped};
  const auto check_length = [&](const TokenStream& stream, const char* what) {
    HYDROFOIL_CHECK_ARG(stream.num_windows(context) >= 1, kFunction, "'", corpus.name,
                        "' is too short: ", corpus.train.num_tokens() + corpus.held_out.num_tokens(), " tokens leave ",
                        stream.num_tokens(), " to ", what, ", expected at least ", context, " + 1");
  };
  check_length(corpus.train, "train on");
  check_length(corpus.held_out, "hold out");
  return corpus;
}

}  // namespace hydrofoil::data
