#pragma once

#include <optional>
#include <string>

#include "hydrofoil/config/field.h"
#include "hydrofoil/config/value.h"

namespace hydrofoil::config {

// What a field takes, for messages: "an integer from 0 to 3", "one of none, cpu, nvme", "a number >= 0".
[[nodiscard]] std::string expected_text(const Field& field);

// A JSON value as the field's Scalar; nullopt where the type or the value does not fit. Whole real numbers (5e8) are
// integers; with `lax`, strings are read as pydantic reads them ("5", "true"). Not for kSection and kRaw.
[[nodiscard]] std::optional<Scalar> coerce(const Value& value, const Field& field, bool lax);

// True where a value of the right type lies in the field's range, choices and length.
[[nodiscard]] bool fits(const Field& field, const Scalar& value);

}  // namespace hydrofoil::config
