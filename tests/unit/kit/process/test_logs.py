import io
import json
import logging
import re
from collections.abc import Iterator

import pytest
from fleetcast_kit.identity import certificates
from fleetcast_kit.identity.enrolment_token import EnrolmentToken
from fleetcast_kit.process import logs, telemetry
from rich.console import Console
from rich.progress import Progress

from tests.support.spans import recorded_spans

_logger = logging.getLogger("fleetcast_test")


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


def test_people_get_a_time_and_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("fleetcast-test")
    _logger.info("listening on %s", "localhost:7443")
    _logger.warning("slow")
    first, second = capsys.readouterr().err.splitlines()
    assert first[8:] == " listening on localhost:7443"
    assert second[8:] == " warning: slow"


def test_a_line_stands_above_a_progress_bar_and_not_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr("sys.stderr", terminal)
    logs.configure("fleetcast-test")
    with Progress(console=Console(file=terminal, force_terminal=True, width=80), auto_refresh=False) as progress:
        progress.add_task("receiving", total=100)
        progress.refresh()
        _logger.warning("the sender is silent")
    (line,) = (line for line in terminal.getvalue().splitlines() if "the sender is silent" in line)
    assert "receiving" not in line
    assert re.search(r"\x1b\[2K\d\d:\d\d:\d\d warning: the sender is silent", line)


def test_programs_get_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("fleetcast-test", "json")
    _logger.info("two\nlines", extra={"session": "sessions/x"})
    entry = json.loads(capsys.readouterr().err)
    assert entry.pop("time").endswith("+00:00")
    assert entry == {
        "level": "INFO",
        "service": "fleetcast-test",
        "logger": "fleetcast_test",
        "message": "two\nlines",
        "session": "sessions/x",
    }


def test_records_inside_a_span_carry_its_ids(capsys: pytest.CaptureFixture[str]) -> None:
    recorded_spans()
    logs.configure("fleetcast-test", "json")
    with telemetry.tracer(__name__).start_as_current_span("work") as span:
        _logger.info("inside")
    entry = json.loads(capsys.readouterr().err)
    assert int(entry["trace_id"], 16) == span.get_span_context().trace_id
    assert int(entry["span_id"], 16) == span.get_span_context().span_id


def test_configuring_again_does_not_write_twice(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("fleetcast-test")
    logs.configure("fleetcast-test", level=logging.WARNING)
    _logger.info("not shown")
    _logger.error("shown")
    assert capsys.readouterr().err.count("shown") == 1


@pytest.mark.parametrize("form", ["human", "json"])
def test_secrets_are_blotted_out_wherever_they_stand(capsys: pytest.CaptureFixture[str], form: logs.LogFormat) -> None:
    logs.configure("fleetcast-test", form)
    token = EnrolmentToken.create(bytes(32)).pack()
    key = certificates.private_key_pem(certificates.generate_key()).decode()
    _logger.info("enrol with %s", token)
    _logger.info(f"key {key}")
    _logger.info("attribute", extra={"token": token})
    try:
        raise RuntimeError(f"cannot use {token} and {key}")
    except RuntimeError:
        _logger.exception("failed")
    written = capsys.readouterr().err
    assert token not in written
    assert token.upper() not in written.upper()
    assert "PRIVATE" not in written
    assert written.count("[secret]") >= 4
