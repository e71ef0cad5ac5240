#pragma once

#include <string_view>

namespace hydrofoil::plan::detail {

// Style sheet and script of the plan's page. The script draws what the element #plan-data holds (page.cpp writes it)
// and puts foreign text into the page as text nodes and attributes alone.
extern const std::string_view kPageStyle;
extern const std::string_view kPageScript;

}  // namespace hydrofoil::plan::detail
