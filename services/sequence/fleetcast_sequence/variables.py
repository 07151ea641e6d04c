"""Variables: where their values come from, which source wins, and which must stay hidden."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from typing import Any

from fleetcast_sequence.errors import ExpressionError, VariableError
from fleetcast_sequence.expression import (
    compile_expression,
    compile_template,
    is_template,
    render,
    templates_in,
    text_of,
)
from fleetcast_sequence.model import Variable, VariableValue

HIDDEN = "***"
"""Stands where a secret stood."""
SHORTEST_MASK = 6
"""Characters of the shortest secret that is hidden inside other text: the places of a shorter one would reveal it, and
make the text unreadable."""


class Scope(IntEnum):
    """Where a value comes from; the higher one wins."""

    SEQUENCE = 0
    COLLECTION = 1
    MACHINE = 2
    DEPLOYMENT = 3
    STEP = 4


class Variables:
    """The variables of one run, and what is computed from them.

    Values from files and operators may be templates and are rendered when they are read; values that a step set are
    taken as they are.
    """

    def __init__(
        self,
        declared: Mapping[str, Variable],
        given: Mapping[Scope, Mapping[str, VariableValue]],
        *,
        context: Mapping[str, Any] | None = None,
        functions: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        """Takes the declarations, and the values by scope.

        Raises:
            VariableError: a value does not have the declared type.
        """
        self._declared = dict(declared)
        self._values: dict[Scope, dict[str, VariableValue]] = {scope: {} for scope in Scope}
        self._reading: list[str] = []
        self.context: dict[str, Any] = dict(context or {})
        """Values of `machine`, `deployment`, `environment` and `last`."""
        self.functions: dict[str, Callable[..., Any]] = dict(functions or {})
        """Functions beside those of the language."""
        for name, variable in self._declared.items():
            if variable.default is not None:
                self._values[Scope.SEQUENCE][name] = self._typed(name, variable.default)
        for scope, values in given.items():
            self._values[scope].update({name: self._typed(name, value) for name, value in values.items()})

    def set(self, values: Mapping[str, VariableValue]) -> None:
        """Gives variables the values that a step computed.

        Raises:
            VariableError: a value does not have the declared type.
        """
        self._values[Scope.STEP].update({name: self._typed(name, value) for name, value in values.items()})

    def missing(self) -> list[str]:
        """Returns the names of the required variables without a value."""
        return [
            name
            for name, variable in self._declared.items()
            if variable.required and all(self._values[scope].get(name) in (None, "") for scope in Scope)
        ]

    def source(self, name: str) -> Scope | None:
        """Returns the scope whose value for `name` wins, if there is any."""
        return next((scope for scope in reversed(Scope) if name in self._values[scope]), None)

    def value(self, name: str) -> Any:
        """Returns the value of a variable, or of a name of the context.

        Raises:
            VariableError: there is no such variable, or it is computed from itself.
            ExpressionError: its template cannot be evaluated.
        """
        if name in self.context:
            return self.context[name]
        scope = self.source(name)
        if scope is None:
            if name in self._declared:
                return None
            raise VariableError(f"there is no variable {name!r}: declare it under `variables`")
        value = self._values[scope][name]
        if scope is Scope.STEP or not any(True for _ in templates_in(value)):
            return value
        if name in self._reading:
            raise VariableError(f"variables are computed from each other: {' -> '.join([*self._reading, name])}")
        self._reading.append(name)
        try:
            return self._typed(name, self.render(value))
        finally:
            self._reading.pop()

    def holds(self, condition: str) -> bool:
        """Returns whether the condition is true now.

        Raises:
            ExpressionError: it cannot be evaluated.
            VariableError: it needs a variable that has none.
        """
        expression = compile_expression(condition)
        return expression.holds(self._named(expression.names), self.functions)

    def render(self, value: Any) -> Any:
        """Returns `value`, made of mappings, lists and scalars, with every template in it rendered.

        Raises:
            ExpressionError: an expression cannot be evaluated.
            VariableError: it needs a variable that has none.
        """
        names = frozenset().union(*(compile_template(text).names for _, text in templates_in(value)))
        return render(value, self._named(names), self.functions)

    def public(self) -> dict[str, Any]:
        """Returns name and value of every variable; `***` for secret ones, None for those that cannot be computed."""
        names = sorted({*self._declared, *(name for values in self._values.values() for name in values)})
        result: dict[str, Any] = {}
        for name in names:
            try:
                result[name] = HIDDEN if self._is_secret(name) else self.value(name)
            except (ExpressionError, VariableError):
                result[name] = None
        return result

    @property
    def secret_names(self) -> frozenset[str]:
        """Names of the variables that are declared as secret."""
        return frozenset(filter(self._is_secret, self._declared))

    def secrets(self) -> frozenset[str]:
        """Returns every text that must not be shown: the values of secret variables from all sources."""
        texts: set[str] = set()
        for name in self.secret_names:
            values: list[Any] = [values.get(name) for values in self._values.values()]
            with contextlib.suppress(ExpressionError, VariableError):
                values.append(self.value(name))
            for value in values:
                texts.update(map(text_of, value if isinstance(value, list) else [value]))
        return frozenset(text for text in texts if text and not is_template(text))

    def _is_secret(self, name: str) -> bool:
        return name in self._declared and self._declared[name].secret

    def _named(self, names: Iterable[str]) -> dict[str, Any]:
        return {name: self.value(name) for name in names}

    def _typed(self, name: str, value: VariableValue) -> VariableValue:
        """Returns `value` in the declared type: operators' values arrive as text."""
        kind = self._declared[name].type if name in self._declared else None
        if kind is None or value is None or is_template(value):
            return value
        if kind == "string" and not isinstance(value, list):
            return text_of(value)
        if kind == "list":
            return value if isinstance(value, list) else [item.strip() for item in text_of(value).split(",")]
        if kind == "boolean" and text_of(value).lower() in ("true", "false"):
            return text_of(value).lower() == "true"
        if kind == "integer" and not isinstance(value, bool | list):
            try:
                return int(value)
            except ValueError:
                pass
        shown = "its value" if self._is_secret(name) else repr(value)
        raise VariableError(f"the variable {name!r} is declared as {kind}, and {shown} is not one")


class Redactor:
    """Hides secrets in text. One of fewer than SHORTEST_MASK characters is hidden only where it is all of the text."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: list[str] = []
        self._short: set[str] = set()
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """Hides these texts too, from now on; each line of a text of several lines by itself."""
        lines = {line for secret in secrets for line in (secret, *secret.splitlines()) if line.strip()}
        self._short |= {line for line in lines if len(line) < SHORTEST_MASK}
        self._secrets = sorted({*self._secrets, *lines} - self._short, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Returns `text` with `***` in the place of every secret."""
        if text in self._short:
            return HIDDEN
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return text

    def wholly(self, text: str) -> str:
        """Returns `text`, which is known to hold a secret, with `***` in the place of the short ones too."""
        text = self(text)
        for secret in sorted(self._short, key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        return text
