import asyncio
from pathlib import Path

import pytest
from fleetcast_agent.sequence.content.arriving import ArrivingFile
from fleetcast_agent.sequence.errors import StepError

CONTENT = bytes(range(256)) * 10_000


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def read_all(file: ArrivingFile) -> bytes:
    content = b""
    while block := await file.read():
        content += block
    return content


async def test_what_is_not_verified_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"ab" + bytes(8))
    file = ArrivingFile(path, 10)
    file.note(2)
    assert await file.read() == b"ab"
    waiting = asyncio.ensure_future(file.read())
    file.note(1)
    await settle()
    assert not waiting.done()
    path.write_bytes(b"abcdefghij")
    file.note(9)
    assert await waiting == b"cdefghi"
    file.note(99)
    assert await read_all(file) == b"j"


async def test_the_beginning_is_given_as_soon_as_it_is_there_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(CONTENT)
    file = ArrivingFile(path, len(CONTENT))
    waiting = asyncio.ensure_future(file.head(1000))
    file.note(999)
    await settle()
    assert not waiting.done()
    file.note(1000)
    assert await waiting == CONTENT[:1000]
    file.note(len(CONTENT))
    assert await read_all(file) == CONTENT


async def test_a_fetch_that_says_nothing_of_its_way_makes_the_file_whole_at_its_end(tmp_path: Path) -> None:
    path = tmp_path / "image"
    file = ArrivingFile(path, len(CONTENT))
    reading = asyncio.ensure_future(read_all(file))
    begun = asyncio.Event()

    async def fetch() -> None:
        await begun.wait()
        path.write_bytes(CONTENT)

    filling = asyncio.ensure_future(file.filled(fetch()))
    await settle()
    assert not reading.done()
    begun.set()
    await filling
    assert await reading == CONTENT


async def test_a_fetch_that_fails_is_no_end_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(CONTENT)
    file = ArrivingFile(path, len(CONTENT))

    async def fetch() -> None:
        file.note(100)
        raise StepError("gone")

    with pytest.raises(StepError, match="gone"):
        await file.filled(fetch())
    assert await file.head(1000) == CONTENT[:100]
    assert await file.read() == CONTENT[:100]
    with pytest.raises(StepError, match=f"image ends after 100 of {len(CONTENT)} bytes"):
        await file.read()


async def test_a_file_that_is_shorter_than_it_was_said_to_be_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"short")
    file = ArrivingFile(path, 10)
    file.note(10)
    assert await file.read() == b"short"
    with pytest.raises(StepError, match="image ends after 5 of 10 bytes"):
        await file.read()


async def test_an_empty_file_has_no_beginning_and_no_content(tmp_path: Path) -> None:
    file = ArrivingFile(tmp_path / "image", 0)
    assert await file.head(8) == b""
    assert await file.read() == b""
