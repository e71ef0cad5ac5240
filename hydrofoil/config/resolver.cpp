#include "hydrofoil/config/resolver.h"

#include <algorithm>
#include <cmath>

#include "hydrofoil/base/error.h"
#include "hydrofoil/base/log.h"
#include "hydrofoil/base/nearest.h"
#include "hydrofoil/config/coerce.h"
#include "hydrofoil/config/parser.h"

namespace hydrofoil::config {

// What the text says for one field: nothing (value is nullptr), or a member under `name`.
struct Resolver::Given {
  const Value* value = nullptr;
  std::string name;
};

namespace {

constexpr size_t kShortList = 20;  // so many valid names are all told

std::string join(const std::string& path, const std::string& key) { return path.empty() ? key : path + "." + key; }

bool contains(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool goes_by(const Field& field, std::string_view name) {
  return field.key == name || contains(field.aliases, name) || contains(field.old_names, name);
}

bool is_empty(const Value& value) {
  const bool list = value.is(ValueKind::kObject) || value.is(ValueKind::kArray);
  return value.is(ValueKind::kNull) || (list && value.members.empty() && value.items.empty()) ||
         (value.is(ValueKind::kBool) && !value.boolean);
}

// "auto" is a value of its own where the choices list it.
bool asks_for_auto(const Field& field, const Value& value) {
  return value.is_auto() && !contains(field.choices, "auto");
}

std::string status_note(const Field& field) {
  switch (field.status) {
    case FieldStatus::kSupported:
      return field.note;
    case FieldStatus::kAcceptedOnly:
      return "no effect here: " + field.note;
    case FieldStatus::kLaterFeature:
      return field.note.empty() ? "off (not yet supported)" : field.note;
  }
  return field.note;
}

// Values beside the range that deserve their own words.
std::string hint(const Field& field, const Value& value) {
  const bool number = field.type == FieldType::kInteger || field.type == FieldType::kNumber;
  if (value.is(ValueKind::kReal) && std::isinf(value.real)) return " (this key does not take Infinity)";
  if (number && value.is(ValueKind::kString)) return " (write numbers without quotes)";
  if (field.type == FieldType::kBool && value.is(ValueKind::kString)) return " (write it without quotes)";
  if (field.type == FieldType::kString && !field.choices.empty() && value.is(ValueKind::kString)) {
    return " (nearest: " + nearest_name(value.text, field.choices) + ")";
  }
  return "";
}

}  // namespace

void Resolver::fail(const Value* where, const std::string& path, const std::string& what) const {
  if (where != nullptr) throw_at(source_, where->position, path, what);
  HYDROFOIL_CHECK_ARG(false, "config", source_, ": ", path.empty() ? "" : path + ": ", what);
  throw InternalError("unreachable");
}

void Resolver::warn(const std::string& message) {
  if (contains(warnings_, message)) return;
  warnings_.push_back(message);
  log_warning(source_, ": ", message);
}

void Resolver::resolve(const Section& section, const Value* object, void* target, const std::string& path) {
  resolve_section(section, object, target, path, true, true);
}

std::vector<Resolver::Given> Resolver::match(const Section& section, const Value* object, const std::string& path) {
  std::vector<Given> given(section.fields.size());
  if (object == nullptr) return given;
  for (const auto& [name, value] : object->members) {
    const auto& fields = section.fields;
    const auto found =
        std::find_if(fields.begin(), fields.end(), [&key = name](const Field& f) { return goes_by(f, key); });
    if (found == fields.end()) {
      if (section.open) continue;
      std::vector<std::string> names;
      for (const auto& candidate : fields) {
        names.push_back(candidate.key);
        names.insert(names.end(), candidate.aliases.begin(), candidate.aliases.end());
      }
      std::string nearest = names.empty() ? "" : "; the nearest valid name is " + quote(nearest_name(name, names));
      if (names.size() > 1 && names.size() <= kShortList) {
        nearest += " of";
        for (const auto& candidate : names) nearest += (candidate == names.front() ? " " : ", ") + candidate;
      }
      std::string shown = quote(name, 80);
      shown = shown.substr(1, shown.size() - 2);
      fail(&value, join(path, shown), "unknown key" + nearest);
    }
    Given& slot = given[static_cast<size_t>(found - fields.begin())];
    if (slot.value != nullptr) {
      fail(&value, join(path, name), "given twice, as " + quote(slot.name) + " too; keep one");
    }
    slot = {&value, name};
    if (contains(found->old_names, name)) {
      warn(join(path, name) + " is deprecated, use " + join(path, found->key));
    }
  }
  return given;
}

bool Resolver::switched_on(const Section& section, const Value* object, const std::string& path) const {
  if (object == nullptr) return false;
  const Value* value = object->find(section.switch_key);
  for (const auto& field : section.fields) {
    if (field.key != section.switch_key) continue;
    Scalar scalar = field.default_value;
    if (value != nullptr && !value->is(ValueKind::kNull) && !value->is_auto()) {
      const auto parsed = coerce(*value, field, section.lax);
      if (!parsed || !fits(field, *parsed)) {
        fail(value, join(path, field.key),
             "got " + describe(*value) + ", expected " + expected_text(field) + hint(field, *value));
      }
      scalar = *parsed;
    }
    if (const auto* flag = std::get_if<bool>(&scalar)) return *flag;
    return scalar != field.default_value &&
           std::find(field.inactive_values.begin(), field.inactive_values.end(), scalar) == field.inactive_values.end();
  }
  return !object->members.empty();
}

void Resolver::resolve_section(const Section& section, const Value* object, void* target, const std::string& path,
                               bool active, bool shown) {
  if (section.activity == Activity::kBySwitch || section.activity == Activity::kByPresence) {
    const bool on = switched_on(section, object, path);
    if (active && on) {
      const Value* place = object->find(section.switch_key);
      fail(
          place != nullptr ? place : object, place != nullptr ? join(path, section.switch_key) : path,
          "not yet supported" + (section.doc.empty() ? "" : " (" + section.doc + ")") + "; remove it or switch it off");
    }
    active = false;
    if (shown) {
      table_.add({path, "off", object != nullptr ? Why::kGiven : Why::kDefault, "off (not yet supported)"});
      shown = false;
    }
  }
  const std::vector<Given> given = match(section, object, path);
  for (size_t i = 0; i < section.fields.size(); ++i) {
    resolve_field(section, section.fields[i], given[i], target, join(path, section.fields[i].key), active, shown);
  }
}

void Resolver::resolve_nested(const Field& field, const Given& given, void* target, const std::string& path,
                              bool active, bool shown) {
  void* child = field.child && target != nullptr ? field.child(target) : nullptr;
  const Value* object = given.value;
  if (object != nullptr && (object->is(ValueKind::kNull) || object->is_auto())) object = nullptr;
  if (object != nullptr && !object->is(ValueKind::kObject)) {
    fail(object, path, "got " + describe(*object) + ", expected an object {...}");
  }
  // A later feature that the text does not name is no news.
  const bool silent = field.status == FieldStatus::kLaterFeature && given.value == nullptr;
  if (given.value != nullptr && given.value->is_auto() && shown) {
    table_.add({path, "defaults", Why::kAuto, "every key of the section takes its default"});
  }
  resolve_section(*field.section, object, child, path, active, shown && !silent);
}

void Resolver::resolve_absent(const Field& field, const Given& given, void* target, const std::string& path,
                              bool shown) {
  const bool automatic = given.value != nullptr && asks_for_auto(field, *given.value);
  if (field.required) {
    fail(given.value, path,
         (automatic ? "\"auto\" has no value here; " : "is missing; ") +
             (field.way_out.empty() ? "give " + expected_text(field) : field.way_out));
  }
  if (field.store && target != nullptr) field.store(target, field.default_value);
  if (!shown || field.unlisted || (field.status == FieldStatus::kLaterFeature && given.value == nullptr)) return;
  std::string note = status_note(field);
  if (given.value != nullptr && !automatic) note = "null means absent" + (note.empty() ? "" : "; " + note);
  table_.add({path, to_text(field.default_value), automatic ? Why::kAuto : Why::kDefault, note});
}

void Resolver::check_later(const Field& field, const Scalar& value, const Value& given, const std::string& path) const {
  const auto& off = field.inactive_values;
  if (value == field.default_value || std::find(off.begin(), off.end(), value) != off.end()) return;
  if (field.type == FieldType::kRaw && is_empty(given)) return;
  fail(&given, path,
       "not yet supported, got " + describe(given) +
           (field.type == FieldType::kRaw ? "; remove it" : "; only " + to_text(field.default_value) + " is"));
}

void Resolver::resolve_field(const Section& section, const Field& field, const Given& given, void* target,
                             const std::string& path, bool active, bool shown) {
  if (field.type == FieldType::kSection) return resolve_nested(field, given, target, path, active, shown);
  const Value* value = given.value;
  if (value == nullptr || value->is(ValueKind::kNull) || asks_for_auto(field, *value)) {
    return resolve_absent(field, given, target, path, shown);
  }
  Scalar scalar;
  if (field.type == FieldType::kRaw) {
    scalar = to_json(*value);
  } else {
    const auto parsed = coerce(*value, field, section.lax);
    if (!parsed || !fits(field, *parsed)) {
      fail(value, path, "got " + describe(*value) + ", expected " + expected_text(field) + hint(field, *value));
    }
    scalar = *parsed;
  }
  if (active && field.status == FieldStatus::kLaterFeature) check_later(field, scalar, *value, path);
  if (field.store && target != nullptr) field.store(target, scalar);
  if (!shown || field.unlisted) return;
  std::string note = status_note(field);
  if (given.name != field.key) note = "given as " + given.name + (note.empty() ? "" : "; " + note);
  if (field.allows_infinity && std::holds_alternative<std::monostate>(scalar)) note = "Infinity: never";
  table_.add({path, to_text(scalar), Why::kGiven, note});
}

void check_ranges(const Section& section, void* owner, const std::string& path) {
  for (const auto& field : section.fields) {
    const std::string place = join(path, field.key);
    if (field.type == FieldType::kSection) {
      if (field.child) check_ranges(*field.section, field.child(owner), place);
    } else if (field.load) {
      const Scalar value = field.load(owner);
      HYDROFOIL_CHECK_ARG(fits(field, value), "config", place, ": got ", to_text(value), ", expected ",
                          expected_text(field));
    }
  }
}

}  // namespace hydrofoil::config
