#pragma once

#include <string>
#include <string_view>

#include "hydrofoil/plan/settings.h"

namespace hydrofoil::plan {

// Roofs of a machine from JSON text: an object with the names of Roofs' fields, each a positive number (`overlaps` a
// boolean); what is left out keeps its default. `file` stands in errors. Throws InvalidArgument for anything else.
[[nodiscard]] Roofs parse_roofs(std::string_view text, const std::string& file);

}  // namespace hydrofoil::plan
