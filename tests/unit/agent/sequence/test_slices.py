"""Long work in slices: held by a pause, ended by a cancellation, never left behind in the background."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from fleetcast_agent.sequence.control import Control
from fleetcast_agent.sequence.slices import in_slices


async def test_all_of_the_work_is_done() -> None:
    done: list[int] = []
    await in_slices(Control(), map(done.append, range(1000)))
    assert done == list(range(1000))


async def test_nothing_is_done_while_the_run_is_paused() -> None:
    control, done = Control(), list[int]()
    control.pause()
    work = asyncio.ensure_future(in_slices(control, map(done.append, range(3))))
    for _ in range(10):
        await asyncio.sleep(0)
    assert done == []
    control.resume()
    await work
    assert done == [0, 1, 2]


async def test_a_pause_takes_effect_between_two_slices() -> None:
    control, done = Control(), list[int]()
    loop, paused = asyncio.get_running_loop(), asyncio.Event()

    def pause() -> None:
        control.pause()
        paused.set()

    def steps() -> Iterator[None]:
        for number in range(5):
            done.append(number)
            if number == 2:
                loop.call_soon_threadsafe(pause)
            yield

    work = asyncio.ensure_future(in_slices(control, steps(), slice_seconds=0))
    await paused.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert done == [0, 1, 2]
    control.resume()
    await work
    assert done == [0, 1, 2, 3, 4]


async def test_work_that_is_cancelled_has_stopped() -> None:
    begun = threading.Event()

    def endless() -> Iterator[None]:
        while True:
            begun.set()
            yield

    items = endless()
    work = asyncio.ensure_future(in_slices(Control(), items))
    await asyncio.to_thread(begun.wait)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    next(items)  # which a thread that still is at it would not allow


async def test_an_error_of_the_work_is_raised() -> None:
    def failing() -> Iterator[None]:
        yield
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        await in_slices(Control(), failing())
