#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace hydrofoil::config {

// A field's value; monostate is "absent" (JSON null).
using Scalar =
    std::variant<std::monostate, bool, int64_t, double, std::string, std::vector<std::string>, std::vector<double>>;

// The value as `explain` and the reference print it: true, 5, 0.001, cpu, [0.9, 0.999], none.
[[nodiscard]] std::string to_text(const Scalar& value);

// The value as JSON.
[[nodiscard]] std::string to_json(const Scalar& value);

// kNumberList takes a single number as a list of one; kRaw takes any JSON and is not looked into.
enum class FieldType { kBool, kInteger, kNumber, kString, kStringList, kNumberList, kSection, kRaw };

// kSupported: does what it says. kAcceptedOnly: tunes DeepSpeed's own implementation, has no effect here.
// kLaterFeature: known; a value that would switch it on is an error.
enum class FieldStatus { kSupported, kAcceptedOnly, kLaterFeature };

struct Section;

// One key of a section: what it takes, what it means, and where its value goes in the owner's struct.
struct Field {
  std::string key;
  FieldType type = FieldType::kRaw;
  Scalar default_value;
  std::string doc;   // one line: what it is
  std::string note;  // what it does here, where that differs from DeepSpeed
  FieldStatus status = FieldStatus::kSupported;
  std::vector<std::string> aliases;     // other names, equally good
  std::vector<std::string> old_names;   // deprecated names: accepted with one warning
  std::vector<std::string> choices;     // allowed strings
  std::vector<Scalar> inactive_values;  // values besides the default that leave a later feature off
  double minimum = -std::numeric_limits<double>::infinity();
  double maximum = std::numeric_limits<double>::infinity();
  bool above_minimum = false;                       // `minimum` itself is excluded
  bool below_maximum = false;                       // `maximum` itself is excluded
  bool required = false;                            // absent or "auto" is an error
  bool allows_infinity = false;                     // Infinity means absent
  bool ignores_case = false;                        // of `choices`
  bool allows_one_string = false;                   // a string stands for a list of one
  bool unlisted = false;                            // no row in `explain`: its owner explains it itself
  size_t length = 0;                                // exact number of elements of a list; 0: any
  std::string default_text;                         // shown instead of the default where that is derived
  std::string way_out;                              // what to do where a required value is missing or "auto"
  std::function<void(void*, const Scalar&)> store;  // empty: no member of its own
  std::function<Scalar(const void*)> load;
  std::function<void*(void*)> child;  // kSection: the nested struct; empty: none
  std::shared_ptr<const Section> section;

  Field& range(double least, double most);
  Field& at_least(double least);
  Field& above(double bound);
  Field& alias(std::string name);
  Field& old_name(std::string name);
  Field& with_note(std::string text);
  Field& with_status(FieldStatus value);
  Field& later();  // with_status(kLaterFeature)
  Field& accepted(std::string what_it_does_here);
  Field& derived(std::string text);
  Field& needed(std::string what_to_do);
  Field& preset(Scalar value);  // another default than the struct's
};

// What decides whether a later feature's section is switched on.
enum class Activity { kByFields, kBySwitch, kByPresence };

// The keys of one JSON object. `lax` sections coerce strings as pydantic does ("5" -> 5, "true" -> true), as in
// DeepSpeed.
struct Section {
  std::string doc;
  std::vector<Field> fields;
  bool lax = false;
  bool open = false;  // other keys are passed through, not looked into
  Activity activity = Activity::kByFields;
  std::string switch_key = "enabled";
  std::string note;
};

// A typed field of struct S; the default is what S's own initialiser says.
template <typename S, typename M>
[[nodiscard]] Field field(std::string key, M S::*member, std::string doc);

// The same for an enum member (or optional of one): `names` maps strings to values, the first of a value is its name.
template <typename S, typename M, typename E>
[[nodiscard]] Field choice(std::string key, M S::*member, const std::vector<std::pair<std::string, E>>& names,
                           std::string doc);

// A field without a member: its type is that of `default_value` (kRaw for monostate).
[[nodiscard]] Field plain(std::string key, Scalar default_value, std::string doc = "");

// A field without a member that is known, accepted and without effect; `note` says what happens here instead.
[[nodiscard]] Field accepted(std::string key, Scalar default_value, std::string note);

// A field of a later feature: a value other than the default is an error.
[[nodiscard]] Field later(std::string key, Scalar default_value, std::string doc = "");

// A nested object that fills a struct member, or one without a member.
template <typename S, typename M>
[[nodiscard]] Field nested(std::string key, M S::*member, Section section);
[[nodiscard]] Field nested(std::string key, Section section);

namespace detail {

template <typename T>
struct Optional : std::false_type {
  using Inner = T;
};
template <typename T>
struct Optional<std::optional<T>> : std::true_type {
  using Inner = T;
};

template <typename T>
constexpr FieldType field_type() {
  if constexpr (std::is_same_v<T, bool>)
    return FieldType::kBool;
  else if constexpr (std::is_integral_v<T>)
    return FieldType::kInteger;
  else if constexpr (std::is_floating_point_v<T>)
    return FieldType::kNumber;
  else if constexpr (std::is_same_v<T, std::string>)
    return FieldType::kString;
  else if constexpr (std::is_same_v<T, std::vector<std::string>>)
    return FieldType::kStringList;
  else
    return FieldType::kNumberList;
}

// The alternative of Scalar that carries a T.
template <typename T>
using Carrier = std::conditional_t<std::is_integral_v<T> && !std::is_same_v<T, bool>, int64_t, T>;

}  // namespace detail

template <typename S, typename M>
Field field(std::string key, M S::*member, std::string doc) {
  using T = typename detail::Optional<M>::Inner;
  Field result;
  result.key = std::move(key);
  result.doc = std::move(doc);
  result.type = detail::field_type<T>();
  if constexpr (std::is_integral_v<T> && sizeof(T) < sizeof(int64_t) && !std::is_same_v<T, bool>) {
    result.range(std::numeric_limits<T>::min(), std::numeric_limits<T>::max());
  }
  result.load = [member](const void* owner) -> Scalar {
    const M& value = static_cast<const S*>(owner)->*member;
    if constexpr (detail::Optional<M>::value) {
      return value ? Scalar(static_cast<detail::Carrier<T>>(*value)) : Scalar();
    } else {
      return static_cast<detail::Carrier<T>>(value);
    }
  };
  result.store = [member](void* owner, const Scalar& value) {
    M& target = static_cast<S*>(owner)->*member;
    if (std::holds_alternative<std::monostate>(value)) {
      target = S{}.*member;
    } else {
      target = static_cast<T>(std::get<detail::Carrier<T>>(value));
    }
  };
  const S defaults{};
  result.default_value = result.load(&defaults);
  return result;
}

template <typename S, typename M, typename E>
Field choice(std::string key, M S::*member, const std::vector<std::pair<std::string, E>>& names, std::string doc) {
  Field result;
  result.key = std::move(key);
  result.doc = std::move(doc);
  result.type = FieldType::kString;
  for (const auto& [name, value] : names) result.choices.push_back(name);
  const auto name_of = [names](E value) {
    for (const auto& [name, candidate] : names) {
      if (candidate == value) return Scalar(name);
    }
    return Scalar();
  };
  result.load = [member, name_of](const void* owner) -> Scalar {
    const M& value = static_cast<const S*>(owner)->*member;
    if constexpr (detail::Optional<M>::value) {
      return value ? name_of(*value) : Scalar();
    } else {
      return name_of(value);
    }
  };
  result.store = [member, names](void* owner, const Scalar& value) {
    M& target = static_cast<S*>(owner)->*member;
    target = S{}.*member;
    const auto* text = std::get_if<std::string>(&value);
    for (const auto& [name, candidate] : names) {
      if (text != nullptr && name == *text) target = candidate;
    }
  };
  const S defaults{};
  result.default_value = result.load(&defaults);
  return result;
}

template <typename S, typename M>
Field nested(std::string key, M S::*member, Section section) {
  Field result = nested(std::move(key), std::move(section));
  result.child = [member](void* owner) -> void* { return &(static_cast<S*>(owner)->*member); };
  return result;
}

}  // namespace hydrofoil::config
