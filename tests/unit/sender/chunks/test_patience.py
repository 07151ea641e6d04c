"""A source of chunks that is away, and comes back."""

import threading
from collections.abc import Sequence

import pytest
from fleetcast_kit.errors import DataLossError, UnavailableError
from fleetcast_sender.chunks.patience import PatientSource


class Source:
    """Fails so often, then gives chunks."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.failures, self.error = failures, error
        self.asked = threading.Event()

    def prefetch(self, chunks: Sequence[int]) -> None:
        self.stored(0)

    def stored(self, chunk: int) -> bytes:
        self.asked.set()
        if self.failures:
            self.failures -= 1
            raise self.error
        return b"stored"


def test_a_source_that_is_away_is_waited_for() -> None:
    source = PatientSource(Source(3, UnavailableError("the catalog is away")), first_wait_seconds=0.001)
    source.prefetch([0])
    assert source.stored(0) == b"stored"


def test_what_is_lost_is_not_waited_for() -> None:
    with pytest.raises(DataLossError):
        PatientSource(Source(1, DataLossError("gone"))).stored(0)


def test_waiting_ends_with_the_transmission() -> None:
    away = Source(1_000_000, UnavailableError("the catalog is away"))
    source = PatientSource(away)
    errors: list[UnavailableError] = []

    def read() -> None:
        try:
            source.stored(0)
        except UnavailableError as error:
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    assert away.asked.wait(10)
    source.stop()
    thread.join(10)
    assert len(errors) == 1
