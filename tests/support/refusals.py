"""For tests in which both outcomes are right: a result, or the error that says what is wrong."""

from __future__ import annotations

from collections.abc import Callable

from fleetcast_kit.errors import InvalidArgumentError


def refusal_of(work: Callable[[], object]) -> InvalidArgumentError | None:
    """Returns the error that `work` refuses its input with, None if it takes it; any other exception passes."""
    try:
        work()
    except InvalidArgumentError as error:
        return error
    return None


def takes_or_says_why(work: Callable[[], object]) -> bool:
    """Returns whether `work` took its input, or refused it in words."""
    refusal = refusal_of(work)
    return refusal is None or bool(refusal.message)
