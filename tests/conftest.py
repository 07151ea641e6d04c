"""Fixtures and markers that every kind of test may use."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from hypothesis import settings

from tests.support.collector import TraceCollector
from tests.support.isolation import leave_the_network
from tests.support.lab import NetworkLab, why_unavailable

# A loaded machine is no failure, so no deadlines; CI draws the same examples each time.
settings.register_profile("tests", deadline=None, derandomize="CI" in os.environ)
settings.register_profile("fuzz", deadline=None, max_examples=20_000)
settings.load_profile("tests")


SLOW_REASON = "slow: make slow runs it"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the choice of the slow lane."""
    parser.addoption("--slow", action="store_true", help="run the tests that are marked slow too")


def pytest_configure(config: pytest.Config) -> None:
    """Gives each of several workers a network of its own, where that is possible."""
    if hasattr(config, "workerinput") and (reason := leave_the_network()):
        warnings.warn(f"tests side by side share the loopback: {reason}", stacklevel=1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keeps the network lab in one lane, since its rates are real; leaves the slow lane out unless it was chosen."""
    for item in items:
        if item.get_closest_marker("lab") is not None:
            item.add_marker(pytest.mark.xdist_group("lab"))
        if item.get_closest_marker("slow") is not None and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason=SLOW_REASON))


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
