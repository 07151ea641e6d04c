"""YAML read into plain data, with the line and column of everything in it.

Only what JSON can say is allowed (YAML 1.2's core types): no anchors, no tags, no dates, and `yes` is a string.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from fleetcast_sequence.errors import Problem, SequenceFileError

MAX_SOURCE_CHARS = 1 << 20
"""A longer file is refused: a sequence of a thousand steps is a tenth of it."""
MAX_DEPTH = 64
"""Mappings and lists inside each other."""

Path = tuple[str | int, ...]
"""Keys and indices from the root."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's interface


for _tag, _pattern, _first in (
    ("null", r"(?:~|null|Null|NULL|)", ("~", "n", "N", "")),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)", tuple("tTfF")),
    ("int", r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)", tuple("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", tuple("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^{_pattern}$"), list(_first))


@dataclass
class Document:
    """A YAML file: its data and where each part of it stands."""

    data: Any = None
    """Built of dict, list, str, int, float, bool and None."""
    problems: list[Problem] = field(default_factory=list)
    """What is wrong with it as YAML."""
    values: dict[Path, tuple[int, int]] = field(default_factory=dict)
    """Line and column, from 1, of every value."""
    keys: dict[Path, tuple[int, int]] = field(default_factory=dict)
    """Line and column, from 1, of the key of every value that has one."""
    _plain: dict[Path, bool] = field(default_factory=dict)

    def nearest(self, location: Path) -> Path:
        """Returns the longest path of this document along `location`; parts of it that are not here are left out."""
        path: Path = ()
        for part in location:
            if (*path, part) in self.values:
                path = (*path, part)
        return path

    def problem(self, location: Path, message: str, *, at_key: bool = False, offset: int = 0) -> Problem:
        """Returns the problem `message` at the value (or key) nearest to `location`.

        `offset` counts characters into a string value; it moves the column only where the string stands on one line.
        """
        path = self.nearest(location)
        line, column = self.keys.get(path, self.values.get(path, (1, 1))) if at_key else self.values.get(path, (1, 1))
        if offset and path in self._plain:
            column += offset + (not self._plain[path])
        return Problem(line, column, path_text(path), message)


def path_text(path: Path) -> str:
    """Returns `path` as people write it, such as `steps[2].with.disk`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read(source: str) -> Document:
    """Returns the document in `source`. Where its `problems` are not empty, its `data` lacks what they are about.

    Raises:
        SequenceFileError: it is not YAML at all, or too long.
    """
    if len(source) > MAX_SOURCE_CHARS:
        raise SequenceFileError([Problem(1, 1, "", f"longer than {MAX_SOURCE_CHARS} characters")])
    try:
        loader = _Loader(source)
        root = loader.get_single_node()
        if root is None:
            raise SequenceFileError([Problem(1, 1, "", "the file is empty")])
        document = Document()
        document.data = _Builder(loader, document).build(root, (), MAX_DEPTH)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        text = ", ".join(filter(None, (error.context, error.problem))) or "is not YAML"
        raise SequenceFileError([Problem(line, column, "", text)]) from error
    except yaml.reader.ReaderError as error:
        line = source.count("\n", 0, error.position) + 1
        column = error.position - source.rfind("\n", 0, error.position)
        text = f"the character U+{ord(source[error.position]):04X} is not allowed in YAML"
        raise SequenceFileError([Problem(line, column, "", text)]) from error
    except RecursionError as error:
        raise SequenceFileError([Problem(1, 1, "", f"nested deeper than {MAX_DEPTH} levels")]) from error
    return document


def renamed(source: str, name: str) -> str:
    """Returns `source` with `name` in the place of the value of its key `name`; unchanged if it has no such key.

    Everything else stays as it is, on the same lines.

    Raises:
        SequenceFileError: it is not YAML at all, or too long.
    """
    read(source)
    root = _Loader(source).get_single_node()
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if key.value == "name" and isinstance(value, yaml.ScalarNode):
            begin, end = value.start_mark.index, value.end_mark.index
            space = "" if source[begin - 1 : begin].isspace() else " "
            line_end = "\n" if source[begin:end].endswith("\n") else ""
            return f"{source[:begin]}{space}{name}{line_end}{source[end:]}"
    return source


class _Builder:
    def __init__(self, loader: _Loader, document: Document) -> None:
        self._loader = loader
        self._document = document
        self._seen: set[int] = set()

    def build(self, node: yaml.Node, path: Path, depth: int) -> Any:
        """Returns the plain data of `node`, and notes the positions under `path`."""
        mark = node.start_mark
        self._document.values[path] = (mark.line + 1, mark.column + 1)
        if id(node) in self._seen:
            self._report(path, "anchors and aliases are not supported: write the value again, or use a variable")
            return None
        self._seen.add(id(node))
        if depth == 0:
            self._report(path, f"nested deeper than {MAX_DEPTH} levels")
            return None
        if isinstance(node, yaml.MappingNode):
            return {key: self.build(value, (*path, key), depth - 1) for key, value in self._entries(node, path)}
        if isinstance(node, yaml.SequenceNode):
            return [self.build(value, (*path, index), depth - 1) for index, value in enumerate(node.value)]
        return self._scalar(node, path)

    def _entries(self, node: yaml.MappingNode, path: Path) -> Iterator[tuple[str, yaml.Node]]:
        seen: set[str] = set()
        for key_node, value in node.value:
            at = key_node.start_mark
            if not isinstance(key_node, yaml.ScalarNode):
                self._report(path, "a key must be a word", at)
                continue
            key = str(key_node.value)
            if key in seen:
                self._report(path, f"the key {key!r} stands here twice", at)
                continue
            seen.add(key)
            self._document.keys[(*path, key)] = (at.line + 1, at.column + 1)
            yield key, value

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        text = str(node.value)
        if isinstance(node, yaml.ScalarNode) and kind == "str":
            if node.style not in ("|", ">") and node.start_mark.line == node.end_mark.line:
                self._document._plain[path] = not node.style
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "int":
            return int(text, 0) if text.startswith(("0o", "0x")) else int(text)
        if kind == "float":
            return float(text)
        self._report(path, f"the tag {node.tag} is not supported")
        return text

    def _report(self, path: Path, message: str, mark: yaml.Mark | None = None) -> None:
        line, column = (mark.line + 1, mark.column + 1) if mark else self._document.values[path]
        self._document.problems.append(Problem(line, column, path_text(path), message))
