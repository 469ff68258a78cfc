"""The JSON schema of the configuration, for editors."""

from typing import Any

from pydantic import BaseModel

from ddis.config import Study
from ddis.models.architectures import ARCHITECTURES, Architecture
from ddis.models.backbones import BACKBONES, Backbone
from ddis.observe import KINDS, load_kind
from ddis.sampling.methods import METHODS, load_method


def json_schema() -> dict[str, Any]:
    """JSON schema of the configuration, with the settings of all that is in the registries of the package."""
    schema = Study.model_json_schema()
    definitions = schema["$defs"]

    def options(*kinds: type[BaseModel]) -> list[dict[str, str]]:
        """References to the settings of registered classes."""
        found = {}
        for made in kinds:
            part = made.model_json_schema(ref_template="#/$defs/{model}")
            definitions.update(part.pop("$defs", {}))
            part.pop("required", None)
            definitions[part["title"]] = part
            found[part["title"]] = {"$ref": f"#/$defs/{part['title']}"}
        return list(found.values())

    methods = options(*(load_method(name).Settings for name in METHODS.builtin))
    kinds = options(*(load_kind(name).Settings for name in KINDS.builtin))
    runs, observations = (schema["properties"][key]["patternProperties"] for key in ("runs", "observations"))
    runs[next(iter(runs))] = {"anyOf": [*methods, {"type": "null"}]}
    observations[next(iter(observations))] = {"anyOf": [*kinds, {"type": "array", "items": {"anyOf": kinds}}]}
    definitions["Architecture"] = {"anyOf": options(*(ARCHITECTURES.load_class(n, Architecture) for n in ARCHITECTURES.builtin))}
    definitions["Backbone"] = {"anyOf": options(*(BACKBONES.load_class(n, Backbone) for n in BACKBONES.builtin))}
    return schema
