import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fleetcast_catalog.images.importing.blocking import BlockingWork, finish


async def test_work_that_must_finish_does_so_however_often_its_task_is_cancelled() -> None:
    may_end, ended = asyncio.Event(), []

    async def work() -> None:
        await may_end.wait()
        ended.append(True)

    task = asyncio.create_task(finish(work()))
    for _ in range(3):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended


async def test_cancelled_work_is_told_to_stop_and_waited_for() -> None:
    started, stopped = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def work() -> None:
        loop.call_soon_threadsafe(started.set)
        stopped.wait()

    with ThreadPoolExecutor(1) as executor:
        blocking = BlockingWork(executor, stopped.set)
        task = asyncio.create_task(blocking.run(work))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert blocking.interrupted.is_set()


async def test_blocking_work_returns_or_raises_what_its_function_does() -> None:
    with ThreadPoolExecutor(1) as executor:
        blocking = BlockingWork(executor, lambda: None)
        assert await blocking.run(lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            await blocking.run(lambda: 1 // 0)
    assert not blocking.interrupted.is_set()
