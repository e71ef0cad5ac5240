#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "hydrofoil/storage/dtype.h"
#include "hydrofoil/storage/file.h"

namespace hydrofoil::storage {

// One tensor of a safetensors file (https://github.com/huggingface/safetensors): little-endian, row-major.
struct TensorEntry {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  int64_t offset = 0;     // of its data in the file, in bytes
  int64_t num_bytes = 0;  // product of the shape times the bytes of one element
};

// Headers of more bytes are neither written nor read.
inline constexpr int64_t kMaxHeaderBytes = 100'000'000;

// Writes one safetensors file: add() every tensor, then write() their data in any order, then finish().
//
// The bytes go to "<path>.hydrofoil-partial"; finish() syncs and renames it, so `path` is the old file or the whole new
// one. An error (SystemError for a full disk or a failing device) and a destructor before finish() remove it. Calls out
// of order, a duplicate or reserved name, invalid UTF-8, a bad shape, too many or too few bytes: InvalidArgument.
class SafetensorsWriter {
 public:
  explicit SafetensorsWriter(std::string path);
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  void set_metadata(const std::string& key, std::string value);
  void add(const std::string& name, DType dtype, std::vector<int64_t> shape);

  // Appends the next `num_bytes` of the tensor's data. The first call writes the header.
  void write(const std::string& name, const void* data, int64_t num_bytes);
  void finish();

  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  enum class State { kDeclaring, kWriting, kFinished, kFailed };

  struct Slot {
    TensorEntry entry;
    int64_t num_written = 0;
  };

  void begin();
  void discard() noexcept;
  [[nodiscard]] std::string header() const;

  std::string path_;
  std::string partial_path_;
  State state_ = State::kDeclaring;
  std::map<std::string, std::string> metadata_;
  std::vector<Slot> slots_;  // in the order of the data once writing begins
  std::map<std::string, size_t> slot_of_;
  File file_;
};

// Reads a safetensors file, which may be hostile: the whole header is checked against the file's size before anything
// is returned. Data is read with pread, so that a file that shrinks later is an error and not a signal. Several threads
// may read.
class SafetensorsReader {
 public:
  // Throws InvalidArgument that names the file and the defect, SystemError where it cannot be read.
  explicit SafetensorsReader(const std::string& path);

  [[nodiscard]] const std::vector<TensorEntry>& tensors() const { return entries_; }  // in the order of the data
  [[nodiscard]] const std::map<std::string, std::string>& metadata() const { return metadata_; }
  [[nodiscard]] const std::string& path() const { return file_.path(); }

  [[nodiscard]] bool contains(const std::string& name) const { return index_of_.contains(name); }
  // Throws InvalidArgument with the nearest name.
  [[nodiscard]] const TensorEntry& entry(const std::string& name) const;

  // Copies bytes [byte_offset, byte_offset + num_bytes) of the tensor. Throws InvalidArgument outside its range.
  void read(const TensorEntry& entry, int64_t byte_offset, int64_t num_bytes, void* out) const;

 private:
  void parse_header(std::string_view text, int64_t data_start, int64_t file_bytes);
  void check_layout(int64_t data_start, int64_t file_bytes) const;

  File file_;
  std::vector<TensorEntry> entries_;
  std::map<std::string, size_t> index_of_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace hydrofoil::storage
