"""A task sequence file checked as a whole: every error, at its line and column."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from fleetcast_sequence.errors import ExpressionError, Problem, SequenceFileError
from fleetcast_sequence.expression import (
    CONTEXT_NAMES,
    Expression,
    Template,
    compile_expression,
    compile_template,
    is_template,
    templates_in,
)
from fleetcast_sequence.machine import unknown_fields
from fleetcast_sequence.model import NAME_PATTERN, VARIABLE_PATTERN, TaskSequence
from fleetcast_sequence.references import is_reference
from fleetcast_sequence.registry import StepType, step_types
from fleetcast_sequence.steps.control import holds_command_line
from fleetcast_sequence.text import document
from fleetcast_sequence.text.document import Document, Path
from fleetcast_sequence.volumes import StepArguments, unnamed_volumes


def parse(source: str, types: Mapping[str, StepType] | None = None) -> TaskSequence:
    """Returns the task sequence that the YAML text `source` describes.

    `types` are the step types it may use; all installed ones by default.

    Raises:
        SequenceFileError: with every problem that can be found without running it.
    """
    return parse_located(source, types)[0]


def parse_located(source: str, types: Mapping[str, StepType] | None = None) -> tuple[TaskSequence, Document]:
    """Returns the task sequence as `parse` does, and where everything stands in the text.

    Raises:
        SequenceFileError: with every problem that can be found without running it.
    """
    found = document.read(source)
    problems = [*found.problems, *_Check(found, types if types is not None else step_types()).problems()]
    if problems:
        raise SequenceFileError(problems)
    return TaskSequence.model_validate(found.data), found


class _Check:
    """The checks of one document. They work on plain data, so that one error does not hide another."""

    def __init__(self, found: Document, types: Mapping[str, StepType]) -> None:
        self._document = found
        self._types = types
        data = found.data if isinstance(found.data, dict) else {}
        self._steps = list(_steps(data.get("steps"), ("steps",)))
        variables = data.get("variables")
        self._variables: dict[Any, Any] = variables if isinstance(variables, dict) else {}
        self._secrets = {
            name for name, value in self._variables.items() if isinstance(value, dict) and value.get("secret") is True
        }
        self._known = CONTEXT_NAMES | set(self._variables) | set(_set_by_steps(self._steps))

    def problems(self) -> Iterator[Problem]:
        """Yields what is wrong."""
        yield from self._against(TaskSequence, self._document.data, ())
        for name, value in self._variables.items():
            default = value.get("default") if isinstance(value, dict) else value
            path: Path = ("variables", name, "default") if isinstance(value, dict) else ("variables", name)
            for at, template in self._templates(default, path):
                if isinstance(template, Problem):
                    yield template
                else:
                    yield from self._exposed(at, template, name)
        for path, node in self._steps:
            yield from self._condition((*path, "when"), node.get("when"))
            if "steps" not in node or "type" in node:
                yield from self._step(path, node)
        for path, text in unnamed_volumes(self._step_arguments()):
            yield self._document.problem(path, text)

    def _step_arguments(self) -> Iterator[StepArguments]:
        for path, node in self._steps:
            kind, given = node.get("type"), node.get("with")
            if isinstance(kind, str):
                yield path, kind, given if isinstance(given, dict) else {}

    def _step(self, path: Path, node: dict[str, Any]) -> Iterator[Problem]:
        name = node.get("type")
        if not isinstance(name, str):
            return
        if name not in self._types:
            close = difflib.get_close_matches(name, self._types, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(sorted(self._types))}"
            yield self._document.problem((*path, "type"), f"there is no step type {name!r}: {hint}")
            return
        given = node.get("with")
        arguments = given if isinstance(given, dict) else {}
        yield from self._against(self._types[name].arguments, arguments, (*path, "with"))
        for at, template in self._templates(arguments, (*path, "with")):
            if isinstance(template, Problem):
                yield template
                continue
            inner = at[len(path) + 1 :]
            if is_reference(self._types[name].arguments, inner):
                text = "what a step refers to is pinned when it is deployed, so it cannot be computed: write it out"
                yield self._document.problem(at, text)
            shown = sorted(template.names & self._secrets)
            if shown and holds_command_line(name, inner):
                way = "pass it by `environment` or `stdin`"
                text = f"the secret variable {shown[0]!r} would show in the process list: {way}"
                yield self._document.problem(at, text)
            if name in ("set-variables", "run-task-sequence") and len(inner) > 1 and inner[0] == "variables":
                yield from self._exposed(at, template, str(inner[1]))

    def _exposed(self, at: Path, template: Template, variable: str) -> Iterator[Problem]:
        shown = sorted(template.names & self._secrets)
        if shown and variable not in self._secrets:
            text = f"{variable!r} would show the secret variable {shown[0]!r}: declare {variable!r} as secret too"
            yield self._document.problem(at, text)

    def _condition(self, path: Path, text: Any) -> Iterator[Problem]:
        if not isinstance(text, str) or not text:
            return
        try:
            yield from self._unknown(path, compile_expression(text), text, 0)
        except ExpressionError as error:
            yield self._document.problem(path, error.message, offset=error.offset)

    def _templates(self, value: Any, path: Path) -> Iterator[tuple[Path, Template | Problem]]:
        for at, text in templates_in(value, path):
            try:
                template = compile_template(text)
            except ExpressionError as error:
                yield at, self._document.problem(at, error.message, offset=error.offset)
                continue
            yield at, template
            for part in template.parts:
                if isinstance(part, Expression):
                    start = max(text.find(part.text), 0)
                    for problem in self._unknown(at, part, part.text, start):
                        yield at, problem

    def _unknown(self, path: Path, expression: Expression, text: str, start: int) -> Iterator[Problem]:
        for name in sorted(expression.names - self._known):
            close = difflib.get_close_matches(name, self._known, 1)
            hint = f"did you mean {close[0]!r}?" if close else "declare it under `variables`"
            offset = start + max(text.find(name), 0)
            yield self._document.problem(path, f"there is no variable {name!r}: {hint}", offset=offset)
        for place, problem in unknown_fields(text):
            yield self._document.problem(path, problem, offset=start + place)

    def _against(self, model: type[BaseModel], data: Any, path: Path) -> Iterator[Problem]:
        """Yields where `data`, which stands at `path`, does not fit `model`; templates in arguments are left out."""
        try:
            model.model_validate(data)
        except ValidationError as error:
            for detail in error.errors(include_url=False, include_input=False):
                location = (*path, *detail["loc"])
                place = self._document.nearest(location)
                if path and is_template(_at(self._document.data, place)):
                    continue
                text, at_key = _message(detail["type"], detail["msg"], detail.get("ctx", {}), location)
                yield self._document.problem(location, text, at_key=at_key)


_FORMS = {
    NAME_PATTERN: "lower-case letters, digits and hyphens, at most 63, the first one no hyphen",
    VARIABLE_PATTERN: "lower-case letters, digits and underscores, at most 50, the first one a letter",
}


def _message(kind: str, text: str, about: Mapping[str, Any], location: Path) -> tuple[str, bool]:
    """Returns the message for people, and whether it is about the key rather than the value."""
    last = location[-1] if location else ""
    if kind == "missing":
        return f"{last!r} is missing", False
    if kind == "extra_forbidden":
        return f"{last!r} is not known here", True
    if kind == "string_pattern_mismatch":
        pattern = str(about.get("pattern"))
        text = f"a name is made of {_FORMS[pattern]}" if pattern in _FORMS else f"does not fit the pattern {pattern}"
    if kind in ("too_short", "string_too_short") and about.get("min_length") == 1:
        text = "must not be empty"
    text = text.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if kind in ("model_type", "model_attributes_type"):
        text = "a mapping of keys and values is wanted here"
    text = text[:1].lower() + text[1:]
    return (f"{location[-2]!r}: {text}", True) if last == "[key]" else (text, False)


def _at(data: Any, path: Path) -> Any:
    for part in path:
        data = data[part]
    return data


def _steps(nodes: Any, path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yields path and data of everything that looks like a step or a group."""
    if not isinstance(nodes, list):
        return
    for index, node in enumerate(nodes):
        if isinstance(node, dict):
            yield (*path, index), node
            yield from _steps(node.get("steps"), (*path, index, "steps"))


def _set_by_steps(steps: list[tuple[Path, dict[str, Any]]]) -> Iterator[str]:
    """Yields the variables that steps set: keys of `variables`, and whatever an argument `..._variable` names."""
    for _, node in steps:
        arguments = node.get("with")
        for key, value in arguments.items() if isinstance(arguments, dict) else ():
            if key == "variables" and isinstance(value, dict):
                yield from filter(lambda name: isinstance(name, str), value)
            elif str(key).endswith("_variable") and isinstance(value, str):
                yield value
