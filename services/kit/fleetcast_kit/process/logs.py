"""The log of a process on standard error, for people or as JSON lines; with trace ids, without secrets."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal

from opentelemetry import trace

LogFormat = Literal["human", "json"]

_SECRET = re.compile(
    r"fct1-[a-z0-9]{8,}|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_PLAIN_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    "trace_id",
    "span_id",
}


def configure(service: str, format: LogFormat = "human", *, level: int = logging.INFO) -> None:  # noqa: A002
    """Sends the log of this process to standard error; `service` is its name in JSON."""
    root = logging.getLogger()
    root.setLevel(level)
    for handler in [handler for handler in root.handlers if isinstance(handler, _StandardErrorHandler)]:
        root.removeHandler(handler)
    handler = _StandardErrorHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter(service) if format == "json" else _HumanFormatter())
    add_handler(handler)
    for chatty in ("alembic", "aiosqlite", "asyncio", "grpc"):
        logging.getLogger(chatty).setLevel(max(level, logging.WARNING))


def add_handler(handler: logging.Handler) -> None:
    """Sends the log to `handler` too, with trace ids and without secrets."""
    handler.addFilter(_complete)
    logging.getLogger().addHandler(handler)


@lru_cache(maxsize=256)
def once(logger: logging.Logger, level: int, sentence: str) -> None:
    """Logs what need not be said again while this process runs."""
    logger.log(level, sentence)


def redact(text: str) -> str:
    """Returns `text` with enrolment tokens and private keys blotted out."""
    return _SECRET.sub("[secret]", text)


class _StandardErrorHandler(logging.StreamHandler):  # type: ignore[type-arg]  # not generic at run time before 3.11.4
    """Is told apart from handlers of tests and libraries.

    It asks for standard error with each line: a progress bar puts something in its place that writes above the bar.
    """

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _complete(record: logging.LogRecord) -> bool:
    """Adds the ids of the current span, and takes secrets out of the message."""
    span = trace.get_current_span().get_span_context()
    record.trace_id = f"{span.trace_id:032x}" if span.is_valid else ""
    record.span_id = f"{span.span_id:016x}" if span.is_valid else ""
    message = record.getMessage()
    if _SECRET.search(message):
        record.msg, record.args = redact(message), None
    return True


class _HumanFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        text = f"{time} {level}{record.getMessage()}"
        trace_id = getattr(record, "trace_id", "")
        if trace_id and record.levelno >= logging.WARNING:
            text += f" (trace {trace_id})"
        if record.exc_info:
            text += "\n" + redact(self.formatException(record.exc_info))
        return text


class _JsonFormatter(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {key: vars(record)[key] for key in ("trace_id", "span_id") if vars(record).get(key)}
        entry |= {key: value for key, value in vars(record).items() if key not in _PLAIN_ATTRIBUTES}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return redact(json.dumps(entry, default=str, ensure_ascii=False))
