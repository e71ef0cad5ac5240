#pragma once

#include <string>
#include <utility>
#include <vector>

#include "hydrofoil/config/field.h"
#include "hydrofoil/config/resolver.h"

namespace hydrofoil::optim::detail {

// The names that `type` can take in a section {type, params}.
struct KnownTypes {
  const std::vector<std::pair<std::string, config::Section>>& native;
  const std::vector<std::string>& later;  // DeepSpeed's, not yet supported; in any case
  const std::vector<std::string>& torch;  // exact names
  bool native_in_any_case = false;
  std::string torch_module;
};

// A section with `type`, `params` and `more` keys.
template <typename S>
config::Section typed_section(std::string doc, std::string S::*type, std::string type_doc,
                              std::vector<config::Field> more) {
  config::Section section;
  section.doc = std::move(doc);
  section.fields = {config::field("type", type, std::move(type_doc)).preset({}),
                    config::plain("params", {}, "keyword arguments, see the tables below")};
  section.fields[1].unlisted = true;  // its rows are those of the type's own table
  section.fields.insert(section.fields.end(), more.begin(), more.end());
  return section;
}

// Resolves the keys beside `params` and returns the params object (nullptr: absent or null). Throws InvalidArgument
// where params stand without a type or are no object.
const config::Value* resolve_type(config::Resolver& resolver, const config::Section& section,
                                  const config::Value* object, void* options, const std::string& path);

// Sets `type` to its canonical name and returns the table of its parameters; nullptr where torch runs it. Throws
// InvalidArgument for a type that is not yet supported or unknown.
const config::Section* find_type(config::Resolver& resolver, const KnownTypes& known, const config::Value& place,
                                 const std::string& path, std::string& type);

// The section's members as a JSON object; absent ones are left out.
std::string members_json(const config::Section& section, const void* owner);

// The JSON of parameters that have no table. Throws InvalidArgument where one is "auto": there is no default to stand
// for it.
std::string raw_params(config::Resolver& resolver, const config::Value* params, const std::string& path);

}  // namespace hydrofoil::optim::detail
