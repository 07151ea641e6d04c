"""Where an enrolment token comes from."""

import io
import sys
from pathlib import Path

import pytest
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.joining.tokens import token_of


def test_a_token_comes_from_a_file_without_the_end_of_its_line(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("fct1-abc\n")
    assert token_of("", tmp_path / "token") == "fct1-abc"
    assert token_of("fct1-xyz", tmp_path / "token") == "fct1-abc", "a variable may be set beside the flag"
    assert token_of("fct1-abc", None) == "fct1-abc"
    assert not token_of("", None)


@pytest.mark.parametrize(("token", "file"), [("-", None), ("", Path("-"))])
def test_a_token_comes_from_standard_input(token: str, file: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("fct1-abc\nmore\n"))
    assert token_of(token, file) == "fct1-abc"


def test_what_is_no_token_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"cannot be read from the file .*: No such file"):
        token_of("", tmp_path / "missing")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(InvalidArgumentError, match="there is no token in the file"):
        token_of("", tmp_path / "empty")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidArgumentError, match="it is no text"):
        token_of("", tmp_path / "binary")
