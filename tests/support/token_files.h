#pragma once

#include <fstream>
#include <string>
#include <string_view>
#include <vector>

namespace hydrofoil::data {

inline void write_bytes(const std::string& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// A .npy file of version 1.0 with the given header text, padded as numpy pads it, and data.
inline std::string npy_bytes(std::string header, std::string_view data) {
  header += std::string(63 - (10 + header.size()) % 64, ' ') + "\n";
  std::string bytes("\x93NUMPY\x01\x00", 8);
  bytes += static_cast<char>(header.size() & 255);
  bytes += static_cast<char>(header.size() >> 8);
  return bytes + header + std::string(data);
}

// numpy.save of a 1-D array; `descr` as numpy names the type of T.
template <typename T>
std::string npy_of(const std::string& descr, const std::vector<T>& tokens) {
  return npy_bytes(
      "{'descr': '" + descr + "', 'fortran_order': False, 'shape': (" + std::to_string(tokens.size()) + ",), }",
      {reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(T)});
}

// What of the given type `action` throws, as text; "no error" where it throws nothing.
template <typename Exception, typename Action>
std::string error_of(Action&& action) {
  try {
    action();
  } catch (const Exception& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace hydrofoil::data
