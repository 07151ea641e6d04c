"""The JSON schema of task sequence files, for editors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleetcast_sequence.model import TaskSequence
from fleetcast_sequence.registry import StepType, step_types


def schema(known: Mapping[str, StepType] | None = None) -> dict[str, Any]:
    """Returns the JSON schema of task sequence files, for editors."""
    known = known if known is not None else step_types()
    result = TaskSequence.model_json_schema(by_alias=True)
    definitions = result["$defs"]
    rules = []
    for name, step_type in sorted(known.items()):
        arguments = step_type.arguments.model_json_schema(ref_template=f"#/$defs/{name}/$defs/{{model}}")
        definitions[name] = _templates_allowed(arguments)
        rules.append(
            {
                "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
                "then": {"properties": {"with": {"$ref": f"#/$defs/{name}"}}},
            }
        )
    step = definitions["Step"]
    step["properties"]["type"]["enum"] = sorted(known)
    step["allOf"] = rules
    variable = definitions["Variable"]
    result["properties"]["variables"]["additionalProperties"] = {
        "anyOf": [{"$ref": "#/$defs/Variable"}, variable["properties"]["default"]]
    }
    result["properties"]["variables"].pop("patternProperties", None)
    step["properties"]["retry"] = {"anyOf": [{"type": "integer"}, *step["properties"]["retry"]["anyOf"]]}
    step["properties"]["when"] = {"anyOf": [{"type": "string"}, {"type": "boolean"}, {"type": "null"}]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **result}


def _templates_allowed(model: dict[str, Any]) -> dict[str, Any]:
    """Returns the schema of arguments where a template may stand in the place of any value."""
    template = {"type": "string", "pattern": r"\{\{"}
    for definition in (model, *model.get("$defs", {}).values()):
        for name, field in definition.get("properties", {}).items():
            about = {key: field.pop(key) for key in ("description", "default", "title") if key in field}
            if field.get("type") != "string" or set(field) - {"type"}:
                field = {"anyOf": [template, field]}  # noqa: PLW2901 - the field is rebuilt
            definition["properties"][name] = {**about, **field}
    return model
