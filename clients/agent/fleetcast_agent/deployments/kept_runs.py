"""The runs in the state directory: each in a directory of its own, from its order until the scheduler knows its end."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TypeVar

from fleetcast_kit.errors import FailedPreconditionError
from fleetcast_kit.files import make_private_directory, write_atomically
from pydantic import BaseModel, ValidationError

from fleetcast_agent.deployments.orders import RunEnd, RunOrder
from fleetcast_agent.sequence.disks import carrying

_logger = logging.getLogger(__name__)

_ORDER, _END, _CLOSED, _LOG = "assignment.json", "end.json", "closed", "log.txt"
_Model = TypeVar("_Model", bound=BaseModel)
_KEPT_LOGS = 20
"""So many logs of runs that are over stay on the machine."""


class KeptRun:
    """A run that was ordered, and its directory."""

    def __init__(self, directory: Path, order: RunOrder) -> None:
        self.directory = directory
        self.order = order
        self.end = _read(directory / _END, RunEnd)
        """How it ended; None while it did not."""

    @property
    def log(self) -> Path:
        """Its log; a run that never began has none."""
        return self.directory / _LOG

    @property
    def closed(self) -> bool:
        """Whether the scheduler knows how it ended."""
        return (self.directory / _CLOSED).exists()

    def conclude(self, end: RunEnd) -> None:
        """Keeps how it ended, durably."""
        write_atomically(self.directory / _END, end.model_dump_json().encode())
        self.end = end

    def close(self) -> None:
        """Keeps, durably, that the scheduler knows."""
        write_atomically(self.directory / _CLOSED, b"")


class KeptRuns:
    """The runs of one state directory."""

    def __init__(self, state_dir: Path) -> None:
        """Opens the directory.

        Raises:
            FailedPreconditionError: it cannot be used.
        """
        self._runs = state_dir / "runs"
        self._logs = state_dir / "logs"
        self._carried = state_dir / carrying.DIRECTORY
        try:
            make_private_directory(self._runs)
            make_private_directory(self._logs)
        except OSError as error:
            raise FailedPreconditionError(
                f"the state directory {state_dir} cannot be used: {error.strerror}; choose another with --state-dir"
            ) from error

    def unfinished(self) -> KeptRun | None:
        """Returns the run that this machine has; one that another system carried here too.

        A directory without its order waits for that to come again: its journal knows what was done.
        """
        order = _read(self._carried / _ORDER, RunOrder)
        if order is not None:
            place = self._place(order)
            if place.exists():
                shutil.rmtree(self._carried)
            else:
                self._carried.rename(place)
        found = []
        for directory in self._runs.iterdir():
            order = _read(directory / _ORDER, RunOrder)
            if order is not None:
                found.append(((directory / _ORDER).stat().st_mtime_ns, KeptRun(directory, order)))
        found.sort(key=lambda item: item[0])
        for _, superseded in found[:-1]:
            self.archive(superseded)
        return found[-1][1] if found else None

    def begin(self, order: RunOrder) -> KeptRun:
        """Returns the run of a new order, kept durably."""
        directory = self._place(order)
        make_private_directory(directory)
        write_atomically(directory / _ORDER, order.model_dump_json().encode())
        return KeptRun(directory, order)

    def archive(self, run: KeptRun) -> None:
        """Removes a run but for its log; logs of long ago go too."""
        if run.log.exists():
            run.log.replace(self._logs / f"{run.directory.name}.txt")
        shutil.rmtree(run.directory, ignore_errors=True)
        logs = sorted(self._logs.glob("*.txt"), key=lambda path: path.stat().st_mtime)
        for path in logs[:-_KEPT_LOGS]:
            path.unlink(missing_ok=True)

    def _place(self, order: RunOrder) -> Path:
        _, deployment, _, run = order.run.split("/")
        return self._runs / f"{deployment}-{run}-{order.attempt}"


def _read(path: Path, model: type[_Model]) -> _Model | None:
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        _logger.warning("%s cannot be used: %s", path, error)
        return None
