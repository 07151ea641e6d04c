import asyncio
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from fleetcast.scheduler.v1 import sender_registry_service_pb2, session_pb2
from fleetcast.sender.v1 import transmission_service_pb2
from fleetcast.sender.v1.transmission_service_pb2_grpc import TransmissionServiceStub
from fleetcast_agent.receiving import convert
from fleetcast_agent.receiving.errors import SenderLostError
from fleetcast_wire.packet import VERSION
from fleetcast_wire.parity.fec import CODECS

from tests.integration.sender_site import running_site
from tests.support.waiting import until

IDLE, SENDING, STOPPED = 2, 1, 3


async def test_machines_receive_the_exact_bytes_by_multicast(tmp_path: Path) -> None:
    async with running_site(tmp_path) as site:
        assert await site.start("a", "b") == ""
        contents = await asyncio.gather(site.receive("a"), site.receive("b"))
        assert set(contents) == {site.image.content}
        assert site.totals.multicast_bytes > 0
        assert site.totals.unicast_bytes == 0
        whole = sum(len(stored) for stored in site.image.stored)
        await site.scheduler.until(lambda: site.scheduler.last_report.transmission.sent_source_bytes >= whole)
        await site.scheduler.until(lambda: site.scheduler.last_state() == IDLE)


async def test_a_lone_machine_is_served_by_unicast(tmp_path: Path) -> None:
    async with running_site(tmp_path, unicast_receivers=1) as site:
        await site.start("a")
        assert await site.receive("a") == site.image.content
        assert site.totals.multicast_bytes == 0


async def test_a_machine_without_multicast_gets_everything_by_unicast(tmp_path: Path) -> None:
    async with running_site(tmp_path) as site:
        await site.start("a")
        assert await site.receive("a", unicast=True) == site.image.content


async def test_a_machine_whose_network_drops_multicast_is_offered_unicast(tmp_path: Path) -> None:
    async with running_site(tmp_path, size_bytes=60_000_000) as site:
        await site.start("a", fixed_bits_per_second=40_000_000)
        requests: asyncio.Queue[transmission_service_pb2.ReceiveRequest] = asyncio.Queue()

        async def said() -> AsyncIterator[transmission_service_pb2.ReceiveRequest]:
            while True:
                yield await requests.get()

        async def report_nothing() -> None:
            for sequence in itertools.count(1):
                await asyncio.sleep(0.05)
                report = transmission_service_pb2.ReceptionReport(sequence=sequence, highest_packet_counter=-1)
                requests.put_nowait(transmission_service_pb2.ReceiveRequest(report=report))

        requests.put_nowait(
            transmission_service_pb2.ReceiveRequest(
                join=transmission_service_pb2.ReceiverJoin(
                    transmission=site.transmission, codecs=CODECS, datagram_versions=[VERSION]
                )
            )
        )
        requests.put_nowait(transmission_service_pb2.ReceiveRequest(ready=transmission_service_pb2.ReceiverReady()))
        reporting = asyncio.create_task(report_nothing())
        kinds = []
        nothing = np.zeros(site.image.manifest.chunk_count, np.bool_)
        async with asyncio.timeout(30):
            async for response in TransmissionServiceStub(site.dial("a")).Receive(said()):
                kinds.append(response.WhichOneof("message"))
                if kinds[-1] == "pass_end":
                    requests.put_nowait(convert.holding_message(1, nothing))
                if kinds[-1] == "unicast":
                    break
        reporting.cancel()
        assert kinds == ["welcome", "plan", "pass_end", "unicast"]


async def test_an_agent_that_takes_older_datagrams_alone_is_served_by_unicast(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_site(tmp_path) as site:
        await site.start("a")
        join = transmission_service_pb2.ReceiverJoin(transmission=site.transmission, codecs=CODECS)

        async def said() -> AsyncIterator[transmission_service_pb2.ReceiveRequest]:
            yield transmission_service_pb2.ReceiveRequest(join=join)
            yield transmission_service_pb2.ReceiveRequest(ready=transmission_service_pb2.ReceiverReady())
            await asyncio.get_running_loop().create_future()

        async with asyncio.timeout(30):
            answers = []
            async for response in TransmissionServiceStub(site.dial("a")).Receive(said()):
                answers.append(response)
                if len(answers) == 2:
                    break
        assert (answers[0].welcome.group, answers[0].welcome.key) == ("", b"")
        assert answers[1].WhichOneof("message") == "unicast"
    assert "its machine is served by unicast; update the agent" in caplog.text


async def test_chunks_come_from_a_catalog_on_another_host_once(tmp_path: Path) -> None:
    async with running_site(tmp_path, local=False) as site:
        await site.start("a", "b")
        contents = await asyncio.gather(site.receive("a"), site.receive("b"))
        assert set(contents) == {site.image.content}
        read = site.catalog.read_chunk_count
        await site.admit("c")
        assert await site.receive("c") == site.image.content
        assert site.catalog.read_chunk_count == read


async def test_a_rotten_byte_in_the_cache_costs_one_chunk_more_from_the_catalog(tmp_path: Path) -> None:
    async with running_site(tmp_path, local=False) as site:
        await site.start("a")
        await site.receive("a")
        read = site.catalog.read_chunk_count
        rotten = next((tmp_path / "cache").iterdir())
        content = bytearray(rotten.read_bytes())
        content[100] ^= 1
        rotten.write_bytes(content)
        await site.admit("b")
        assert await site.receive("b") == site.image.content
        assert site.catalog.read_chunk_count == read + 1
        assert rotten.read_bytes() != content


@pytest.mark.parametrize("unicast", [False, True])
async def test_a_catalog_that_is_away_stalls_a_transmission_and_fails_none(tmp_path: Path, unicast: bool) -> None:
    async with running_site(tmp_path, local=False) as site:
        site.catalog.away = True
        starting = asyncio.create_task(site.start("a"))
        await until(lambda: site.catalog.refused_count >= 2)
        assert not starting.done()
        site.catalog.away = False
        assert await starting == ""
        site.catalog.away, site.catalog.refused_count = True, 0
        receiving = asyncio.create_task(site.receive("a", unicast=unicast))
        await until(lambda: site.catalog.refused_count >= 3)
        assert not receiving.done()
        site.catalog.away = False
        assert await receiving == site.image.content


async def test_machines_are_served_in_a_slower_group_of_their_own(tmp_path: Path) -> None:
    async with running_site(tmp_path, size_bytes=20_000_000) as site:
        await site.start("a", "b", "c", fixed_bits_per_second=100_000_000)
        others = asyncio.gather(site.receive("a"), site.receive("b"))
        slow = asyncio.create_task(site.receive("c"))
        await site.until_received("c")
        site.sender.transmissions.running[site.transmission].separate("machines/c")
        with pytest.raises(SenderLostError, match="slower group"):
            await slow
        assert await site.receive("c") == site.image.content
        assert site.totals.multicast_bytes > 0
        assert set(await others) == {site.image.content}
        assert await site.stop() == ""


async def test_a_reserved_group_is_refused(tmp_path: Path) -> None:
    async with running_site(tmp_path) as site:
        assert "not free for use" in await site.start("a", group="224.0.0.5")


async def test_a_machine_that_is_not_admitted_waits_for_its_admission(tmp_path: Path) -> None:
    async with running_site(tmp_path) as site:
        await site.start("a")
        receiving = asyncio.create_task(site.receive("b"))
        answered, _ = await asyncio.wait({receiving}, timeout=0.3)
        assert not answered
        await site.admit("b")
        assert await receiving == site.image.content


async def test_commands_are_idempotent(tmp_path: Path) -> None:
    async with running_site(tmp_path) as site:
        assert await site.start("a") == ""
        assert await site.start("a") == ""
        assert await site.stop() == ""
        assert await site.stop() == ""
        assert await site.stop("sessions/9/transmissions/9") == ""


async def test_stopping_dismisses_the_receivers_and_leaves_nothing_behind(tmp_path: Path) -> None:
    before = threads()
    async with running_site(tmp_path, size_bytes=20_000_000) as site:
        await site.start("a", fixed_bits_per_second=20_000_000)
        receiving = asyncio.create_task(site.receive("a"))
        await site.until_received("a")
        assert await site.stop() == ""
        with pytest.raises(SenderLostError, match="session has ended"):
            await receiving
        await site.scheduler.until(lambda: site.scheduler.last_state() == STOPPED)
        assert not [t for t in threading.enumerate() if t.name.startswith("fleetcast-")]
    assert threads() <= before


def threads() -> set[str]:
    """Returns the names of the threads, but those that event loops and gRPC keep for the whole process."""
    kept = ("asyncio_", "_poll_wrapper")
    return {thread.name for thread in threading.enumerate() if not any(name in thread.name for name in kept)}


async def test_a_transmission_goes_on_while_the_scheduler_restarts(tmp_path: Path) -> None:
    async with running_site(tmp_path, size_bytes=20_000_000) as site:
        await site.start("a", "b", fixed_bits_per_second=80_000_000)
        receiving = asyncio.gather(site.receive("a"), site.receive("b"))
        await site.scheduler.until(lambda: site.scheduler.last_state() == SENDING)
        site.scheduler.break_stream()
        await site.scheduler.until(lambda: len(site.scheduler.registrations) == 2)
        assert list(site.scheduler.registrations[1].transmissions) == [site.transmission]
        assert set(await receiving) == {site.image.content}
        assert await site.stop() == ""


@pytest.mark.parametrize("unicast", [False, True])
async def test_the_rate_can_change_while_running(tmp_path: Path, unicast: bool) -> None:
    async with running_site(tmp_path, size_bytes=20_000_000) as site:
        await site.start("a", fixed_bits_per_second=1_000_000)  # 80 s for the half that has to be sent
        receiving = asyncio.create_task(site.receive("a", unicast=unicast))
        await site.until_received("a", unicast=unicast)
        assert not receiving.done()
        rate = sender_registry_service_pb2.SetTransmissionRate(
            transmission=site.transmission,
            rate=session_pb2.RatePolicy(fixed_bits_per_second=900_000_000, ceiling_bits_per_second=500_000_000),
        )
        assert await site.scheduler.command(sender_registry_service_pb2.ServeSenderResponse(set_rate=rate)) == ""
        assert await asyncio.wait_for(receiving, 60) == site.image.content


async def test_a_machine_that_joins_late_gets_what_it_missed(tmp_path: Path) -> None:
    async with running_site(tmp_path, size_bytes=20_000_000) as site:
        await site.start("a", "b", fixed_bits_per_second=100_000_000)
        first = asyncio.create_task(site.receive("a"))
        await site.until_received("a")
        assert set(await asyncio.gather(first, site.receive("b"))) == {site.image.content}


@pytest.mark.lab
@pytest.mark.skipif(os.geteuid() != 0, reason="makes a network namespace: needs root")
def test_a_group_of_ipv6_works_the_same() -> None:
    # A namespace of its own has an interface for IPv6 multicast whatever the host has.
    script = Path(__file__).with_name("sender_over_ipv6.py")
    command = ["unshare", "--net", sys.executable, "-W", "error", str(script)]
    ended = subprocess.run(command, cwd=script.parents[2], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "received by multicast"


async def test_several_transmissions_at_once(tmp_path: Path) -> None:
    async with running_site(tmp_path, link_rate="400M") as site:
        names = [f"sessions/{n}/transmissions/1" for n in range(3)]
        for index, name in enumerate(names):
            error = await site.start(
                f"m{index}", group=f"239.192.77.{10 + index}", port=64100 + index, transmission=name
            )
            assert error == ""
        receptions = [site.receive(f"m{index}", transmission=name) for index, name in enumerate(names)]
        assert set(await asyncio.gather(*receptions)) == {site.image.content}


async def test_more_transmissions_than_allowed_are_refused(tmp_path: Path) -> None:
    async with running_site(tmp_path, max_concurrent=1) as site:
        assert await site.start("a") == ""
        assert "1 transmissions already" in await site.start("a", transmission="sessions/2/transmissions/1")


async def test_a_damaged_store_fails_the_transmission_with_a_sentence(tmp_path: Path) -> None:
    async with running_site(tmp_path) as site:
        await site.start("a")
        for file in (tmp_path / "store" / "chunks").rglob("*.*"):
            file.unlink()
        with pytest.raises(SenderLostError, match="missing from the store"):
            await site.receive("a")
        await site.scheduler.until(lambda: site.scheduler.last_state() == 4)
        assert "missing from the store" in site.scheduler.last_report.error
