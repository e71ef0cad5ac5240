#pragma once

#include "hydrofoil/base/error.h"

namespace hydrofoil::comm::detail {

// comm has a detail of its own, which hides that of base.
using ::hydrofoil::detail::concat;

}  // namespace hydrofoil::comm::detail
