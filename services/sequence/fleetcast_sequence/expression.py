"""Conditions and templates: expressions of the Common Expression Language (CEL) over variables and the machine.

A condition is one expression. A template is text with expressions in `{{ }}`; when the text is nothing but one
expression, its value keeps its type.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from fleetcast_sequence.errors import ExpressionError

if TYPE_CHECKING:  # importing the library takes half a second, and most processes evaluate nothing
    import cel

CONTEXT_NAMES = frozenset({"machine", "deployment", "environment", "last"})
"""Names that every expression may use beside the variables."""
FILE_FUNCTIONS = frozenset({"file_exists", "directory_exists", "file_size_bytes", "file_text"})
"""Functions that look at the machine's live file system."""
MAX_EXPRESSION_CHARS = 2000

_STANDARD_NAMES = frozenset(
    [
        "charAt",
        "distinct",
        "indexOf",
        "join",
        "lastIndexOf",
        "lowerAscii",
        "max",
        "min",
        "replace",
        "reverse",
        "sort",
        "split",
        "substring",
        "sum",
        "trim",
        "upperAscii",
    ]
)
"""Functions that the library has beside those of the language."""
_NATIVE_FUNCTIONS = frozenset(
    [
        "all",
        "bool",
        "bytes",
        "contains",
        "double",
        "duration",
        "dyn",
        "endsWith",
        "exists",
        "exists_one",
        "filter",
        "getDate",
        "getDayOfMonth",
        "getDayOfWeek",
        "getDayOfYear",
        "getFullYear",
        "getHours",
        "getMilliseconds",
        "getMinutes",
        "getMonth",
        "getSeconds",
        "has",
        "int",
        "map",
        "matches",
        "size",
        "startsWith",
        "string",
        "timestamp",
        "type",
        "uint",
    ]
)
_POSITION = re.compile(r"<input>:(\d+):(\d+): (?:Syntax error: )?(.*)")
_BOUND = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(\s*([A-Za-z_]\w*)\s*,")


@dataclass(frozen=True)
class Expression:
    """A compiled expression."""

    text: str
    program: cel.Program
    names: frozenset[str]
    """What it needs a value for."""

    def evaluate(self, names: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]]) -> Any:
        """Returns its value where `names` have these values and `functions` exist.

        Raises:
            ExpressionError: a name has no value, a key is missing, or types do not fit.
        """
        context = _cel().Context(dict(names), {**_standard_functions(), **functions})
        try:
            return self.program.execute(context)
        except KeyError as error:
            raise ExpressionError(f"{self.text!r}: there is no {error.args[0]!r}: test with has(...) first") from error
        except (RuntimeError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise ExpressionError(f"{self.text!r}: {error}") from error

    def holds(self, names: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]]) -> bool:
        """Returns whether it is true.

        Raises:
            ExpressionError: it cannot be evaluated, or is neither true nor false.
        """
        value = self.evaluate(names, functions)
        if not isinstance(value, bool):
            raise ExpressionError(f"{self.text!r} is {value!r}, neither true nor false: compare it with something")
        return value


@lru_cache(maxsize=4096)
def compile_expression(text: str) -> Expression:
    """Returns the compiled form of `text`.

    Raises:
        ExpressionError: it does not parse, or calls a function that does not exist; `offset` says where.
    """
    if len(text) > MAX_EXPRESSION_CHARS:
        raise ExpressionError(f"the expression is longer than {MAX_EXPRESSION_CHARS} characters")
    try:
        program = _cel().compile(text)
    except ValueError as error:
        raise _syntax_error(text, str(error)) from error
    for name in program.functions():
        known = name in _NATIVE_FUNCTIONS or name in FILE_FUNCTIONS or name in _STANDARD_NAMES
        if re.fullmatch(r"[A-Za-z]\w*", name) and not known:
            raise ExpressionError(f"there is no function {name!r}", offset=max(text.find(name), 0))
    return Expression(text, program, frozenset(program.variables()) - set(_BOUND.findall(text)))


@cache
def _cel() -> Any:
    """Returns the library, imported on first use."""
    import cel.stdlib  # noqa: PLC0415 - see above

    return cel


@cache
def _standard_functions() -> Mapping[str, Callable[..., Any]]:
    return {name: _cel().stdlib.STDLIB_FUNCTIONS[name] for name in _STANDARD_NAMES}


def _syntax_error(text: str, message: str) -> ExpressionError:
    match = _POSITION.search(message)
    if not match:
        return ExpressionError(f"{text!r} is not an expression")
    lines = text.split("\n")
    offset = sum(len(line) + 1 for line in lines[: int(match[1]) - 1]) + int(match[2]) - 1
    detail = re.sub(r" expecting \{.*", "", match[3]).replace("'<EOF>'", "end")
    return ExpressionError(f"{text!r} is not an expression: {detail}", offset=min(offset, len(text)))


@dataclass(frozen=True)
class Template:
    """Text with expressions in it."""

    parts: tuple[str | Expression, ...]

    @property
    def names(self) -> frozenset[str]:
        """What it needs a value for."""
        return frozenset().union(*(part.names for part in self.parts if isinstance(part, Expression)))

    def render(self, names: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]]) -> Any:
        """Returns the text with values in the place of expressions; one lone expression gives its value as it is.

        Raises:
            ExpressionError: an expression cannot be evaluated.
        """
        values = [part if isinstance(part, str) else part.evaluate(names, functions) for part in self.parts]
        if len(values) == 1:
            return values[0]
        return "".join(text_of(value) for value in values)


def text_of(value: Any) -> str:
    """Returns how `value` stands inside other text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def is_template(value: object) -> bool:
    """Returns whether `value` is text with an expression in it."""
    return isinstance(value, str) and "{{" in value


@lru_cache(maxsize=4096)
def compile_template(text: str) -> Template:
    """Returns the compiled form of `text`.

    Raises:
        ExpressionError: an expression in it does not parse, or a `{{` has no `}}`; `offset` says where.
    """
    parts: list[str | Expression] = []
    start = 0
    while (opening := text.find("{{", start)) >= 0:
        if opening > start:
            parts.append(text[start:opening])
        expression, start = _expression_in(text, opening + 2)
        parts.append(expression)
    if start < len(text) or not parts:
        parts.append(text[start:])
    return Template(tuple(parts))


def _expression_in(text: str, begin: int) -> tuple[Expression, int]:
    """Returns the expression that begins at `begin`, and where the text after its `}}` begins.

    A `}}` may be part of the expression (a map in a map), so the first one that leaves a correct expression ends it.
    """
    first_error: ExpressionError | None = None
    end = text.find("}}", begin)
    while end >= 0:
        try:
            inner = text[begin:end]
            return compile_expression(inner.strip()), end + 2
        except ExpressionError as error:
            indent = len(inner) - len(inner.lstrip())
            first_error = first_error or ExpressionError(error.message, offset=begin + indent + error.offset)
        end = text.find("}}", end + 1)
    raise first_error or ExpressionError("a '{{' without its '}}'", offset=begin - 2)


def render(value: Any, names: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]]) -> Any:
    """Returns `value`, made of mappings, lists and scalars, with every template in it rendered.

    Raises:
        ExpressionError: an expression cannot be evaluated.
    """
    if isinstance(value, str):
        return compile_template(value).render(names, functions) if is_template(value) else value
    if isinstance(value, Mapping):
        return {key: render(item, names, functions) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [render(item, names, functions) for item in value]
    return value


def templates_in(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yields path and text of every template in `value`."""
    if isinstance(value, str):
        if is_template(value):
            yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from templates_in(item, (*path, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from templates_in(item, (*path, index))
