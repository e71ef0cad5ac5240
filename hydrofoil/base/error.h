#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace hydrofoil {

// Root of every exception that the library throws on its own account.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// What a caller can cause: a wrong value, key, size or order of calls. Python sees ValueError.
class InvalidArgument : public Error {
 public:
  using Error::Error;
};

// An invariant of the library is broken; no input can cause it. Python sees RuntimeError.
class InternalError : public Error {
 public:
  using Error::Error;
};

// The operating system refused something (file, memory, process). Python sees OSError.
class SystemError : public Error {
 public:
  using Error::Error;
};

// A collective failed: deadline passed, a rank died, or the ranks disagree. Python sees hydrofoil.CommError.
class CommError : public Error {
 public:
  using Error::Error;
};

namespace detail {

template <typename... Args>
std::string concat(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

inline std::string concat() { return {}; }

[[noreturn]] void throw_invalid_argument(std::string_view function, const std::string& what);
[[noreturn]] void throw_internal_error(const char* file, int line, const char* condition, const std::string& what);

}  // namespace detail

// Throws SystemError "[function] what: <strerror(error_number)>".
[[noreturn]] void throw_system_error(std::string_view function, const std::string& what, int error_number);

}  // namespace hydrofoil

// Throws InvalidArgument "[function] ..." unless `cond` holds. The message says what, what was got, what was expected.
#define HYDROFOIL_CHECK_ARG(cond, function, ...)                                                       \
  do {                                                                                                 \
    if (!(cond)) [[unlikely]]                                                                          \
      ::hydrofoil::detail::throw_invalid_argument(function, ::hydrofoil::detail::concat(__VA_ARGS__)); \
  } while (false)

// Throws InternalError unless `cond` holds; input must never be able to reach it.
#define HYDROFOIL_ASSERT(cond, ...)                                                                                   \
  do {                                                                                                                \
    if (!(cond)) [[unlikely]]                                                                                         \
      ::hydrofoil::detail::throw_internal_error(__FILE__, __LINE__, #cond, ::hydrofoil::detail::concat(__VA_ARGS__)); \
  } while (false)
