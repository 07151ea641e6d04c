"""What can go wrong while a task sequence runs."""

from __future__ import annotations

from fleetcast_kit.errors import DataLossError, FailedPreconditionError
from pydantic import ValidationError


class StepError(FailedPreconditionError):
    """A step could not do its work."""

    def __init__(self, message: str, *, exit_code: int | None = None) -> None:
        super().__init__(message, reason="STEP_FAILED")
        self.exit_code = exit_code
        """Exit code of the program that failed, if it was one."""


class RunJournalError(DataLossError):
    """The record of what was done is damaged, or of another run: nobody can know what is left to do."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="JOURNAL_DAMAGED")


def first_problem(error: ValidationError) -> str:
    """Returns the first thing that is wrong with arguments, and where; without the value, which may be a secret."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
