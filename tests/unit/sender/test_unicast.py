import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from fleetcast_sender.engine.rate import RatePolicy
from fleetcast_sender.unicast import UnicastReader, unicast_limit

MIB = 1 << 20


def test_alone_only_the_operator_limits_unicast() -> None:
    assert unicast_limit(RatePolicy(), 0, 5, MIB) == 0
    assert unicast_limit(RatePolicy(ceiling_bits_per_second=300), 0, 5, MIB) == 300
    assert unicast_limit(RatePolicy(fixed_bits_per_second=200, ceiling_bits_per_second=300), 0, 5, MIB) == 200


def test_beside_a_group_unicast_takes_a_twentieth_of_what_it_gets() -> None:
    assert unicast_limit(RatePolicy(), 1_000_000_000, 1, MIB) == 50_000_000
    assert unicast_limit(RatePolicy(ceiling_bits_per_second=40_000_000), 1_000_000_000, 1, MIB) == 40_000_000


@pytest.mark.parametrize("reader_count", [1, 40, 1000])
@pytest.mark.parametrize("group_bits_per_second", [1, 100_000_000])
def test_everybody_gets_a_chunk_before_it_gives_up(reader_count: int, group_bits_per_second: int) -> None:
    limit = unicast_limit(RatePolicy(), group_bits_per_second, reader_count, 4 * MIB)
    assert reader_count * 4 * MIB * 8 / limit <= 7


async def test_readers_that_break_off_leave_their_time_to_others() -> None:
    reader, transmission = UnicastReader(), _transmission(chunk_bytes=1000, bits_per_second=80_000)
    await reader.read(transmission, 0)
    for task in (gone := [asyncio.create_task(reader.read(transmission, 0)) for _ in range(20)]):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    await asyncio.wait_for(reader.read(transmission, 0), 1)


def _transmission(chunk_bytes: int, bits_per_second: int) -> Any:
    return SimpleNamespace(
        name="t",
        rate=RatePolicy(fixed_bits_per_second=bits_per_second),
        group_bits_per_second=0,
        table=SimpleNamespace(stored_size_bytes=[chunk_bytes]),
        source=SimpleNamespace(stored=lambda chunk: bytes(chunk_bytes)),
        unicast_bytes=0,
    )
