#include "hydrofoil/optim/detail/typed_section.h"

#include <algorithm>

#include "hydrofoil/base/nearest.h"

namespace hydrofoil::optim::detail {

using config::Value;
using config::ValueKind;

const Value* resolve_type(config::Resolver& resolver, const config::Section& section, const Value* object,
                          void* options, const std::string& path) {
  resolver.resolve(section, object, options, path);
  if (object == nullptr) return nullptr;
  const Value* type = object->find("type");
  const Value* params = object->find("params");
  if (params != nullptr && (params->is(ValueKind::kNull) || params->is_auto())) params = nullptr;
  if (params != nullptr && !params->is(ValueKind::kObject)) {
    resolver.fail(params, path + ".params", "got " + describe(*params) + ", expected an object {...}");
  }
  if (type != nullptr && type->is_auto()) {
    resolver.fail(type, path + ".type", "\"auto\" has no value here; name a type or leave the section out");
  }
  const bool named = type != nullptr && !type->is(ValueKind::kNull);
  if (named && type->text.empty()) {
    resolver.fail(type, path + ".type", "got an empty name; name a type or leave the section out");
  }
  if (!named && params != nullptr) {
    resolver.fail(params, path + ".type", "is missing beside params; name a type or leave the section out");
  }
  return params;
}

const config::Section* find_type(config::Resolver& resolver, const KnownTypes& known, const Value& place,
                                 const std::string& path, std::string& type) {
  const auto same = [](const std::string& a, const std::string& b) { return edit_distance(a, b) == 0; };
  for (const auto& [name, section] : known.native) {
    if (name == type || (known.native_in_any_case && same(name, type))) {
      type = name;
      resolver.table().derive(path, type, "");
      return &section;
    }
  }
  for (const auto& name : known.later) {
    if (same(name, type)) resolver.fail(&place, path, name + " is not yet supported");
  }
  if (std::find(known.torch.begin(), known.torch.end(), type) != known.torch.end()) {
    resolver.table().annotate(path, "run by " + known.torch_module);
    return nullptr;
  }
  std::vector<std::string> names = known.torch;
  for (const auto& entry : known.native) names.push_back(entry.first);
  resolver.fail(&place, path,
                "unknown type " + config::quote(type, 60) + "; the nearest valid name is " +
                    config::quote(nearest_name(type, names)));
}

std::string members_json(const config::Section& section, const void* owner) {
  std::string out;
  for (const auto& field : section.fields) {
    if (!field.load) continue;
    const config::Scalar value = field.load(owner);
    if (std::holds_alternative<std::monostate>(value)) continue;
    out += (out.empty() ? "" : ", ") + config::quote(field.key) + ": " + config::to_json(value);
  }
  return "{" + out + "}";
}

std::string raw_params(config::Resolver& resolver, const Value* params, const std::string& path) {
  if (params == nullptr) return "{}";
  for (const auto& [key, value] : params->members) {
    const std::string place = path + "." + key;
    if (value.is_auto()) {
      resolver.fail(
          &value, place,
          "\"auto\" has no value here: the arguments of this type have no defaults of the engine; give a value");
    }
    resolver.table().add({place, config::to_json(value), config::Why::kGiven, "passed on to torch"});
  }
  return config::to_json(*params);
}

}  // namespace hydrofoil::optim::detail
