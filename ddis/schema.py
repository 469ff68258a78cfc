"""The JSON schema of the configuration, for editors."""

from typing import Any

from ddis.config import Study
from ddis.observe import KINDS, load_kind
from ddis.sampling.methods import METHODS, load_method


def json_schema() -> dict[str, Any]:
    """JSON schema of the configuration, with the settings of the built-in methods."""
    schema = Study.model_json_schema()
    options = []
    for name in METHODS.builtin:
        part = load_method(name).Settings.model_json_schema(ref_template="#/$defs/{model}")
        schema["$defs"].update(part.pop("$defs", {}))
        part.pop("required", None)
        schema["$defs"][part["title"]] = part
        options.append({"$ref": f"#/$defs/{part['title']}"})
    observations = schema["properties"]["observations"]["patternProperties"]
    kinds = []
    for name in KINDS.builtin:
        part = load_kind(name).Settings.model_json_schema(ref_template="#/$defs/{model}")
        schema["$defs"][part["title"]] = part
        kinds.append({"$ref": f"#/$defs/{part['title']}"})
    observations[next(iter(observations))] = {"anyOf": [*kinds, {"type": "array", "items": {"anyOf": kinds}}]}
    unique = [option for i, option in enumerate(options) if option not in options[:i]]
    runs = schema["properties"]["runs"]["patternProperties"]
    runs[next(iter(runs))] = {"anyOf": [*unique, {"type": "null"}]}
    return schema
