import struct
from pathlib import Path

import pytest
from fleetcast_agent.sequence.content.arriving import ArrivingFile
from fleetcast_agent.sequence.content.pipable import holds, image_names
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.examples import examples

TWO = "<WIM><IMAGE INDEX='2'><NAME>Büro</NAME></IMAGE><IMAGE INDEX='1'><NAME>Labor</NAME></IMAGE></WIM>"


def pipable(xml: str, *, magic: int = 0x2B9B9BA2443DB9D8, flags: int = 2, size: int | None = None) -> bytes:
    """Returns the beginning of a pipable WIM as wimlib writes it, and some bytes of what follows."""
    text = xml.encode("utf-16")
    resource = struct.pack("<QQ20sI", magic, len(text) if size is None else size, bytes(20), flags)
    return b"WLPWM\0\0\0".ljust(208, b"\0") + resource + text + b"what follows"


async def names_in(path: Path, content: bytes) -> list[str] | None:
    path.write_bytes(content)  # noqa: ASYNC240 - it is small
    file = ArrivingFile(path, len(content))
    file.note(len(content))
    return await image_names(file)


async def test_the_names_of_the_images_are_read_in_the_order_of_their_index(tmp_path: Path) -> None:
    assert await names_in(tmp_path / "wim", pipable(TWO)) == ["Labor", "Büro"]
    assert await names_in(tmp_path / "wim", pipable("<WIM><IMAGE INDEX='1'/></WIM>")) == [""]
    assert await names_in(tmp_path / "wim", pipable("<WIM/>")) == []


async def test_the_beginning_is_enough(tmp_path: Path) -> None:
    content = pipable(TWO)
    path = tmp_path / "wim"
    path.write_bytes(content)
    file = ArrivingFile(path, len(content) * 1000)
    file.note(len(content) - len(b"what follows"))
    assert await image_names(file) == ["Labor", "Büro"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"MSWIM\0\0\0" + pipable(TWO)[8:],
        pipable(TWO)[:230],
        pipable(TWO)[:300],
        pipable(TWO, magic=1),
        pipable(TWO, flags=6),
        pipable(TWO, size=1 << 40),
        pipable("<WIM><IMAGE></WIM>"),
        pipable("<WIM><IMAGE/></WIM>"),
        pipable("<WIM><IMAGE INDEX='2'/></WIM>"),
        pipable("<!DOCTYPE WIM [<!ENTITY a 'b'>]><WIM/>"),
    ],
)
async def test_any_other_file_is_to_be_whole_before_it_is_applied(tmp_path: Path, content: bytes) -> None:
    assert await names_in(tmp_path / "wim", content) is None


@settings(max_examples=examples(50), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.integers(0, 400))
async def test_damage_is_no_reason_to_stop(tmp_path: Path, damage: bytes, place: int) -> None:
    content = bytearray(pipable(TWO))
    content[place : place + len(damage)] = damage
    names = await names_in(tmp_path / "wim", bytes(content))
    assert names is None or all(isinstance(name, str) for name in names)


def test_an_image_is_meant_by_its_index_or_name() -> None:
    names = ["Labor", "Büro"]
    assert [index for index in ("0", "1", "2", "3", "Büro", "büro", "all", "") if holds(names, index)] == [
        "1",
        "2",
        "Büro",
    ]
