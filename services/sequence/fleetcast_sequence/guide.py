"""The reference of the step types, written from their models: `python -m fleetcast_sequence.guide GUIDE.md`."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from fleetcast_sequence.registry import StepType, step_types

BEGIN = "<!-- step reference: generated, do not edit -->"
END = "<!-- end of the step reference -->"


def reference() -> str:
    """Returns the reference of every step type as Markdown."""
    return "\n\n".join(_step(step_type) for _, step_type in sorted(step_types().items()))


def updated(guide: str) -> str:
    """Returns the guide with the reference of now between its two marks."""
    before, _, rest = guide.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{reference()}\n\n{END}{after}"


def _step(step_type: StepType) -> str:
    lines = [f"### {step_type.name}", "", inspect.getdoc(step_type.arguments) or "", ""]
    lines += [f"When interrupted: {step_type.on_interruption}.", ""]
    fields = step_type.arguments.model_fields
    if fields:
        lines += ["| argument | | default |", "|---|---|---|"]
        lines += [_row(name, field) for name, field in fields.items()]
        for inner in dict.fromkeys(model for field in fields.values() for model in _models(field.annotation)):
            lines += ["", f"Each of its {inner.__name__}:", "", "| argument | | default |", "|---|---|---|"]
            lines += [_row(name, field) for name, field in inner.model_fields.items()]
    return "\n".join(lines)


def _row(name: str, field: FieldInfo) -> str:
    choices = ", ".join(f"`{choice}`" for choice in _choices(field.annotation))
    text = " ".join(filter(None, (field.description, f"One of {choices}." if choices else "")))
    return f"| `{name}` | {text.replace('|', chr(92) + '|')} | {_default(field)} |"


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    if field.default in (None, "", [], {}, 0) and field.default is not False:
        return ""
    shown = str(field.default).lower() if isinstance(field.default, bool) else field.default
    return f"`{shown}`"


def _choices(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) is Literal:
        return list(typing.get_args(annotation))
    if isinstance(annotation, types.UnionType):
        return [choice for each in typing.get_args(annotation) for choice in _choices(each)]
    return []


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for each in typing.get_args(annotation) for model in _models(each)]


def main() -> None:
    """Rewrites the reference in the guide that the command line names."""
    guide = Path(sys.argv[1])
    guide.write_text(updated(guide.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
