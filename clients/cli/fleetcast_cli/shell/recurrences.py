"""Recurrences as people write them: `daily`, `weekdays`, `weekly`, or a rule of iCalendar."""

from __future__ import annotations

from fleetcast_kit.errors import InvalidArgumentError

_WORDS = {
    "daily": "FREQ=DAILY",
    "weekdays": "FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR",
    "weekly": "FREQ=WEEKLY",
}


def recurrence(text: str) -> str:
    """Returns the recurrence rule that `text` says, empty for none; the server checks rules written out.

    Raises:
        InvalidArgumentError: it is neither a known word nor a rule.
    """
    if text and text.lower() not in _WORDS and "=" not in text:
        raise InvalidArgumentError(
            f"{text!r} is not a recurrence: write {', '.join(_WORDS)} or a rule of iCalendar like FREQ=WEEKLY;BYDAY=SA",
            field="recurrence",
        )
    return _WORDS.get(text.lower(), text)
