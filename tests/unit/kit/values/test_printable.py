"""Text from anybody, made safe for a terminal."""

import json

import pytest
from fleetcast_kit.values.printable import printable, printable_json
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("größe\t1\n", "größe\t1\n"),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("a\x9b31mb", "a\\x9b31mb"),
        ("pc\u202egpj.exe", "pc\\u202egpj.exe"),
        ("caf\udce9.img", "caf\\xe9.img"),
        ("over\rwritten", "over\\x0dwritten"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters()))
def test_whatever_it_is_can_be_shown_and_only_once_escaped(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert printable(shown) == shown
    assert not set(shown) & set(map(chr, (0x1B, 0x9B, 0x202E, 0x7F)))


@given(st.text(st.characters()))
def test_json_says_the_same(text: str) -> None:
    shown = printable_json(json.dumps(text, ensure_ascii=False))
    shown.encode()
    assert json.loads(shown) == text
