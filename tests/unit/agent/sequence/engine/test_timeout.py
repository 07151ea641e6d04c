import asyncio

import pytest
from fleetcast_agent.sequence.control import Control
from fleetcast_agent.sequence.engine.timeout import unpaused_timeout


async def test_no_time_passes_while_the_run_is_paused() -> None:
    control, work = Control(), asyncio.get_running_loop().create_future()
    control.pause()
    with unpaused_timeout(work, 0.0, control) as timer:
        for _ in range(10):
            await asyncio.sleep(0)
        assert not timer.expired
        control.resume()
        with pytest.raises(asyncio.CancelledError):
            await work
    assert timer.expired


async def test_without_a_limit_nothing_expires() -> None:
    work = asyncio.get_running_loop().create_future()
    with unpaused_timeout(work, None, Control()) as timer:
        work.set_result(None)
        await work
    assert not timer.expired
