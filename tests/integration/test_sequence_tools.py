"""Programs that get their input while it comes to be, and whose output is lines."""

import asyncio

import pytest
from fleetcast_agent.sequence.control import Control
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.tools import Tools

from tests.support.waiting import until


def make_tools(lines: list[str]) -> Tools:
    return Tools(Control(), lines.append)


async def test_a_program_has_each_part_of_its_input_before_the_next_one_is_made() -> None:
    lines: list[str] = []
    asked = 0

    async def part() -> bytes:
        nonlocal asked
        asked += 1
        await until(lambda: len(lines) >= asked - 1)
        return b"%d\n" % asked if asked < 4 else b""

    finished = await make_tools(lines).run(["cat"], stdin=part)
    assert finished.output == "1\n2\n3\n"


async def test_what_is_written_over_is_progress_and_no_line_of_the_log() -> None:
    lines: list[str] = []
    progress: list[str] = []
    text = r"one\r\n10%%\r20%%\n1/2\b\b\b2/2\b\b\bdone\nlast"
    await make_tools(lines).run(["printf", text], progress=progress.append)
    assert lines == ["one", "20%", "done", "last"]
    assert progress == ["one", "10%", "20%", "1/2", "2/2", "done", "last"]


async def test_large_input_arrives_whole() -> None:
    parts = [bytes([number]) * (1 << 20) for number in range(5)]

    async def part() -> bytes:
        return parts.pop(0) if parts else b""

    finished = await make_tools([]).run(["wc", "-c"], stdin=part)
    assert int(finished.output) == 5 << 20


async def test_a_program_that_ends_early_does_not_wait_for_the_rest_of_its_input() -> None:
    parts = [b"abc"]

    async def part() -> bytes:
        return parts.pop() if parts else await asyncio.get_running_loop().create_future()

    finished = await asyncio.wait_for(make_tools([]).run(["head", "-c", "2"], stdin=part), 10)
    assert finished.output == "ab"


async def test_input_that_cannot_be_made_is_the_reason_said() -> None:
    parts = [b"abc"]

    async def part() -> bytes:
        if not parts:
            raise StepError("the source is gone")
        return parts.pop()

    lines: list[str] = []
    with pytest.raises(StepError, match="the source is gone"):
        await make_tools(lines).run(["sh", "-c", "cat; exit 3"], stdin=part)
    assert lines == ["abc"]
