"""What a task sequence would do on a machine, without doing it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fleetcast_sequence import (
    ExpressionError,
    Group,
    Node,
    Redactor,
    Step,
    TaskSequence,
    VariableError,
    Variables,
    step_types,
)
from fleetcast_sequence.expression import compile_expression, compile_template, templates_in, text_of
from fleetcast_sequence.volumes import unnamed_volumes_of
from pydantic import ValidationError

from fleetcast_agent.sequence.errors import first_problem


@dataclass(frozen=True)
class PlannedNode:
    """A group or step and what would become of it."""

    number: str
    """Its place, such as `2.1`."""
    depth: int
    name: str
    kind: str
    """Step type, or `group`."""
    verdict: str
    """`runs`, `skipped`, `fails` or `depends`."""
    reason: str = ""
    arguments: Mapping[str, Any] | None = None
    """Rendered as far as they are known now, secrets hidden."""


def plan(sequence: TaskSequence, variables: Variables) -> list[PlannedNode]:
    """Returns every group and step of `sequence`, its children in their places, with its condition evaluated.

    Values that only a running step can set make what needs them `depends`.
    """
    return list(_Simulation(variables, dict(unnamed_volumes_of(sequence))).nodes(sequence.steps, "", 0, None))


class _Simulation:
    def __init__(self, variables: Variables, unnamed_volumes: Mapping[str, str]) -> None:
        self._variables = variables
        self._unnamed_volumes = unnamed_volumes
        self._unknown = {"last"}
        self._hide = Redactor(variables.secrets())

    def nodes(self, nodes: list[Node], parent: str, depth: int, above: PlannedNode | None) -> Iterator[PlannedNode]:
        for index, node in enumerate(nodes, 1):
            number = f"{parent}.{index}".lstrip(".")
            kind = "group" if isinstance(node, Group) else node.type
            verdict, reason = self._verdict(node, above)
            arguments = None
            if isinstance(node, Step) and verdict in ("runs", "depends"):
                arguments, problem = self._arguments(node)
                problem = problem or self._unnamed_volumes.get(node.name, "")
                if problem:
                    verdict, reason = "fails", problem
                self._set(node, certain=verdict == "runs")
            planned = PlannedNode(number, depth, node.name, kind, verdict, self._hide(reason), arguments)
            yield planned
            if isinstance(node, Group):
                yield from self.nodes(node.steps, number, depth + 1, planned)

    def _verdict(self, node: Node, above: PlannedNode | None) -> tuple[str, str]:
        if above is not None and above.verdict in ("skipped", "fails"):
            return "skipped", f"its group is {above.verdict}" if above.verdict == "skipped" else "its group fails"
        if node.disabled:
            return "skipped", "it is disabled"
        if node.when is None:
            return (above.verdict, "as its group does") if above and above.verdict == "depends" else ("runs", "")
        try:
            if unknown := sorted(compile_expression(node.when).names & self._unknown):
                return "depends", f"{node.when} ({', '.join(unknown)} is known when it runs)"
            holds = self._variables.holds(node.when)
        except (ExpressionError, VariableError) as error:
            return "fails", error.message
        if not holds:
            return "skipped", f"false: {node.when}"
        return (above.verdict if above else "runs"), f"true: {node.when}"

    def _arguments(self, step: Step) -> tuple[Mapping[str, Any], str]:
        """Returns the arguments rendered as far as they are known, and what is wrong with them."""
        shown: dict[str, Any] = {}
        complete, secret = True, set[str]()
        for name, value in step.arguments.items():
            names = {name for _, text in templates_in(value) for name in compile_template(text).names}
            if names & self._variables.secret_names:
                secret.add(name)
            if names & self._unknown:
                shown[name], complete = value, False
                continue
            try:
                shown[name] = self._variables.render(value)
            except (ExpressionError, VariableError) as error:
                return {}, error.message
        step_type = step_types().get(step.type)
        if complete and step_type is not None:
            try:
                step_type.arguments.model_validate(shown)
            except ValidationError as error:
                return {}, (self._hide.wholly if secret else self._hide)(first_problem(error))
        hides = {name: self._hide.wholly if name in secret else self._hide for name in shown}
        return {name: _hidden(value, hides[name]) for name, value in shown.items()}, ""

    def _set(self, step: Step, *, certain: bool) -> None:
        """Takes in what the step would set: values of `set-variables` are known, all others are not."""
        for name, value in step.arguments.items():
            if name == "variables" and isinstance(value, dict):
                names = {each for _, text in templates_in(value) for each in compile_template(text).names}
                if certain and step.type == "set-variables" and not names & self._unknown:
                    self._variables.set(self._variables.render(value))
                else:
                    self._unknown |= set(value)
            elif name.endswith("_variable") and isinstance(value, str):
                self._unknown.add(value)


def _hidden(value: Any, hide: Callable[[str], str]) -> Any:
    """Returns the value without secrets, which may also be numbers."""
    if isinstance(value, dict):
        return {name: _hidden(each, hide) for name, each in value.items()}
    if isinstance(value, list):
        return [_hidden(each, hide) for each in value]
    hidden = hide(text_of(value))
    return value if hidden == text_of(value) else hidden


def text(nodes: list[PlannedNode]) -> str:
    """Returns the plan as people read it."""
    lines = []
    for node in nodes:
        reason = f"  ({node.reason})" if node.reason else ""
        indent = "  " * node.depth
        lines.append(f"{node.verdict:8} {indent}{node.number} {node.name} [{node.kind}]{reason}")
        for name, value in (node.arguments or {}).items():
            lines.append(f"{'':8} {indent}    {name}: {json.dumps(value, ensure_ascii=False, default=str)}")
    return "\n".join(lines)
