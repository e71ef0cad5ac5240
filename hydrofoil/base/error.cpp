#include "hydrofoil/base/error.h"

#include <cstring>

namespace hydrofoil {
namespace detail {

void throw_invalid_argument(std::string_view function, const std::string& what) {
  throw InvalidArgument(concat("[", function, "] ", what));
}

void throw_internal_error(const char* file, int line, const char* condition, const std::string& what) {
  throw InternalError(concat("internal error at ", file, ":", line, ": ", condition, what.empty() ? "" : ": ", what,
                             "; this is a defect of Hydrofoil, please report it"));
}

}  // namespace detail

void throw_system_error(std::string_view function, const std::string& what, int error_number) {
  throw SystemError(detail::concat("[", function, "] ", what, ": ", std::strerror(error_number)));
}

}  // namespace hydrofoil
