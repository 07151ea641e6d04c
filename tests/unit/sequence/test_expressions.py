"""Conditions and templates, whatever is written into them."""

from __future__ import annotations

from contextlib import suppress

from fleetcast_sequence import ExpressionError
from fleetcast_sequence.expression import compile_expression, compile_template, text_of
from hypothesis import given
from hypothesis import strategies as st

OPERATORS = [*"[](){}:,+/%<!?", "==", "&&", "||", "{{", "}}", "in", "\\"]
FUNCTIONS = ["size", "has", ".matches", ".map(i, i)", ".all(i, i)", "timestamp", "duration"]
VALUES = [
    "machine",
    ".serial",
    ".memory_bytes",
    "x",
    "1",
    "-1",
    "0",
    "2.5",
    "9223372036854775807",
    "'a'",
    '"b',
    "true",
    "é",
]
WORDS = [*OPERATORS, *FUNCTIONS, *VALUES]
TEXTS = st.text(max_size=40) | st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)
NAMES = {"machine": {"serial": "S1", "memory_bytes": 8 << 30}, "x": [1, "two", None]}


@given(TEXTS)
def test_no_condition_raises_anything_but_its_own_error(text: str) -> None:
    with suppress(ExpressionError):
        text_of(compile_expression(text).evaluate(NAMES, {}))


@given(TEXTS)
def test_no_template_raises_anything_but_its_own_error(text: str) -> None:
    with suppress(ExpressionError):
        compile_template(text)
