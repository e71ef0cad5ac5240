#include <unistd.h>

#include <algorithm>
#include <bit>
#include <nlohmann/json.hpp>
#include <utility>

#include "hydrofoil/base/error.h"
#include "hydrofoil/storage/safetensors.h"

namespace hydrofoil::storage {
namespace {

constexpr const char* kFunction = "SafetensorsWriter";
constexpr const char* kMetadataKey = "__metadata__";

static_assert(std::endian::native == std::endian::little, "safetensors data is written as it lies in memory");

}  // namespace

SafetensorsWriter::SafetensorsWriter(std::string path)
    : path_(std::move(path)), partial_path_(path_ + std::string(kPartialSuffix)) {}

SafetensorsWriter::~SafetensorsWriter() {
  if (state_ == State::kWriting) discard();
}

void SafetensorsWriter::discard() noexcept {
  file_ = File();
  ::unlink(partial_path_.c_str());
  state_ = State::kFailed;
}

void SafetensorsWriter::set_metadata(const std::string& key, std::string value) {
  HYDROFOIL_CHECK_ARG(state_ == State::kDeclaring, kFunction, "'", path_, "': set_metadata after the first write");
  metadata_[key] = std::move(value);
}

void SafetensorsWriter::add(const std::string& name, DType dtype, std::vector<int64_t> shape) {
  HYDROFOIL_CHECK_ARG(state_ == State::kDeclaring, kFunction, "'", path_, "': tensor '", name,
                      "' added after the first write");
  HYDROFOIL_CHECK_ARG(name != kMetadataKey, kFunction, "'", path_, "': the name ", kMetadataKey, " is reserved");
  const auto num_bytes = checked_bytes(shape, dtype);
  HYDROFOIL_CHECK_ARG(num_bytes.has_value(), kFunction, "'", path_, "': tensor '", name,
                      "': a dimension is negative or the size is over 2^63 - 1 bytes");
  HYDROFOIL_CHECK_ARG(slot_of_.emplace(name, slots_.size()).second, kFunction, "'", path_, "': duplicate tensor '",
                      name, "'");
  slots_.push_back({TensorEntry{name, dtype, std::move(shape), 0, *num_bytes}});
}

std::string SafetensorsWriter::header() const {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  if (!metadata_.empty()) json[kMetadataKey] = metadata_;
  for (const Slot& slot : slots_) {
    const TensorEntry& entry = slot.entry;
    // Through `update` of one-entry objects the ordered map would be searched for each name: quadratic.
    json.get_ref<nlohmann::ordered_json::object_t&>().emplace_back(
        entry.name,
        nlohmann::ordered_json{{"dtype", dtype_name(entry.dtype)},
                               {"shape", entry.shape},
                               {"data_offsets", std::vector<int64_t>{entry.offset, entry.offset + entry.num_bytes}}});
  }
  std::string text;
  try {
    text = json.dump();
  } catch (const nlohmann::json::exception& error) {
    HYDROFOIL_CHECK_ARG(false, kFunction, "'", path_, "': a name or metadata is not UTF-8: ", error.what());
  }
  text.append((8 - text.size() % 8) % 8, ' ');
  HYDROFOIL_CHECK_ARG(static_cast<int64_t>(text.size()) <= kMaxHeaderBytes, kFunction, "'", path_,
                      "': got a header of ", text.size(), " bytes, expected at most ", kMaxHeaderBytes);
  return text;
}

void SafetensorsWriter::begin() {
  // Larger elements first: every tensor is aligned to its element, so that others can map the file.
  std::stable_sort(slots_.begin(), slots_.end(), [](const Slot& a, const Slot& b) {
    return dtype_bytes(a.entry.dtype) > dtype_bytes(b.entry.dtype);
  });
  int64_t offset = 0;
  for (size_t i = 0; i < slots_.size(); ++i) {
    TensorEntry& entry = slots_[i].entry;
    slot_of_[entry.name] = i;
    entry.offset = offset;
    const bool overflow = __builtin_add_overflow(offset, entry.num_bytes, &offset);
    HYDROFOIL_CHECK_ARG(!overflow && offset <= INT64_MAX - kMaxHeaderBytes - 8, kFunction, "'", path_,
                        "': the tensors together are over 2^63 - 1 bytes");
  }
  const std::string text = header();
  const int64_t data_start = 8 + static_cast<int64_t>(text.size());
  for (Slot& slot : slots_) slot.entry.offset += data_start;

  file_ = File::create(partial_path_);
  state_ = State::kWriting;
  const uint64_t length = text.size();
  file_.write_at(&length, sizeof(length), 0);
  file_.write_at(text.data(), static_cast<int64_t>(text.size()), sizeof(length));
}

void SafetensorsWriter::write(const std::string& name, const void* data, int64_t num_bytes) {
  HYDROFOIL_CHECK_ARG(state_ == State::kDeclaring || state_ == State::kWriting, kFunction, "'", path_, "': tensor '",
                      name, "' written after the end or an error");
  HYDROFOIL_CHECK_ARG(slot_of_.contains(name), kFunction, "'", path_, "': tensor '", name, "' was not added");
  try {
    if (state_ == State::kDeclaring) begin();
    Slot& slot = slots_[slot_of_.at(name)];
    HYDROFOIL_CHECK_ARG(num_bytes >= 0 && num_bytes <= slot.entry.num_bytes - slot.num_written, kFunction, "'", path_,
                        "': tensor '", name, "': got ", num_bytes, " bytes, expected at most ",
                        slot.entry.num_bytes - slot.num_written, " more");
    file_.write_at(data, num_bytes, slot.entry.offset + slot.num_written);
    slot.num_written += num_bytes;
  } catch (const std::exception&) {
    discard();
    throw;
  }
}

void SafetensorsWriter::finish() {
  HYDROFOIL_CHECK_ARG(state_ == State::kDeclaring || state_ == State::kWriting, kFunction, "'", path_,
                      "': finish after the end or an error");
  try {
    if (state_ == State::kDeclaring) begin();
    for (const Slot& slot : slots_) {
      HYDROFOIL_CHECK_ARG(slot.num_written == slot.entry.num_bytes, kFunction, "'", path_, "': tensor '",
                          slot.entry.name, "': got ", slot.num_written, " bytes, expected ", slot.entry.num_bytes);
    }
    file_.sync();
    file_.close();
    rename_path(partial_path_, path_);
  } catch (const std::exception&) {
    discard();
    throw;
  }
  state_ = State::kFinished;
  sync_directory(parent_directory(path_));
}

}  // namespace hydrofoil::storage
