#include "hydrofoil/config/reference.h"

#include "hydrofoil/config/coerce.h"

namespace hydrofoil::config {
namespace {

std::string escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '|') out += '\\';
    out += c;
  }
  return out;
}

std::string names(const Field& field) {
  std::string out = "`" + field.key + "`";
  for (const auto& alias : field.aliases) out += ", `" + alias + "`";
  return out;
}

std::string default_text(const Field& field) {
  if (field.required) return "required";
  if (!field.default_text.empty()) return field.default_text;
  return to_text(field.default_value);
}

std::string meaning(const Field& field) {
  std::string out = field.doc;
  const auto append = [&](const std::string& sentence) {
    if (!sentence.empty()) out += (out.empty() ? "" : "; ") + sentence;
  };
  switch (field.status) {
    case FieldStatus::kSupported:
      append(field.note);
      break;
    case FieldStatus::kAcceptedOnly:
      append("*accepted, no effect here:* " + field.note);
      break;
    case FieldStatus::kLaterFeature:
      append("*not yet supported*" + (field.note.empty() ? "" : ": " + field.note));
      break;
  }
  for (const auto& old : field.old_names) append("deprecated name: `" + old + "`");
  return out;
}

std::string section_status(const Section& section) {
  switch (section.activity) {
    case Activity::kByFields:
      return "";
    case Activity::kBySwitch:
      return "Not yet supported: the section is known, and an error where `" + section.switch_key + "` switches it on.";
    case Activity::kByPresence:
      return "Not yet supported: the section is known, and an error where it is present and not empty.";
  }
  return "";
}

// Every key below a later feature's section, as `a`, `b.c`, ...
std::string known_keys(const Section& section, const std::string& prefix) {
  std::string out;
  for (const auto& field : section.fields) {
    const std::string part = field.type == FieldType::kSection ? known_keys(*field.section, prefix + field.key + ".")
                                                               : "`" + prefix + field.key + "`";
    out += (out.empty() || part.empty() ? "" : ", ") + part;
  }
  return out;
}

std::string later_markdown(const Section& section, const std::string& title) {
  std::string out = "## " + title + "\n\n";
  if (!section.doc.empty()) out += section.doc + ". ";
  out += section_status(section) + "\n\nKnown keys: " + known_keys(section, "") + ".\n\n";
  if (section.open) out += "Further keys are accepted.\n\n";
  return out;
}

}  // namespace

std::string section_markdown(const Section& section, const std::string& title, const std::string& path) {
  if (section.activity != Activity::kByFields) return later_markdown(section, title);
  std::string rows;
  std::string rest;
  for (const auto& field : section.fields) {
    if (field.type == FieldType::kSection) {
      const std::string place = path + field.key;
      std::string heading = "`" + place + "`";
      for (const auto& alias : field.aliases) heading += ", `" + path + alias + "`";
      rest += section_markdown(*field.section, heading, place + ".");
    } else if (!field.unlisted) {
      rows += "| " + names(field) + " | " + escape(expected_text(field)) + " | " + escape(default_text(field)) + " | " +
              escape(meaning(field)) + " |\n";
    }
  }
  std::string out = "## " + title + "\n\n";
  if (!section.doc.empty()) out += section.doc + ".\n\n";
  if (!section.note.empty()) out += section.note + "\n\n";
  if (!rows.empty()) out += "| Key | Takes | Default | Meaning |\n|---|---|---|---|\n" + rows + "\n";
  return out + rest;
}

}  // namespace hydrofoil::config
