"""Fixtures and markers that every kind of test may use."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from hypothesis import settings

from tests.support.collector import TraceCollector
from tests.support.lab import NetworkLab, why_unavailable

# A loaded machine is no failure, so no deadlines; CI draws the same examples each time.
settings.register_profile("tests", deadline=None, derandomize="CI" in os.environ)
settings.register_profile("fuzz", deadline=None, max_examples=20_000)
settings.load_profile("tests")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs the network lab where none can be opened, saying why."""
    if item.get_closest_marker("lab") is not None and (reason := why_unavailable()):
        pytest.skip(reason)


@pytest.fixture
def open_lab() -> Iterator[Callable[..., NetworkLab]]:
    """Returns `NetworkLab`, opened; every lab a test opens is closed at its end. Mark the test `lab`."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(NetworkLab(**options))


@pytest.fixture
def lab(open_lab: Callable[..., NetworkLab]) -> NetworkLab:
    """Returns a lab with one sender and three receivers. Mark the test `lab`."""
    return open_lab()


@pytest.fixture
def collector() -> Iterator[TraceCollector]:
    """Returns a running receiver of traces on the loopback; `collector.environment()` makes a process export to it."""
    with TraceCollector() as running:
        yield running
