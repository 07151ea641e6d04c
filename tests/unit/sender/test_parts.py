import ipaddress
from dataclasses import replace

import numpy as np
import pytest
from fleetcast_kit.errors import FailedPreconditionError, InvalidArgumentError, ResourceExhaustedError
from fleetcast_sender.engine.geometry_choice import GeometryOverrides, choose_geometry
from fleetcast_sender.engine.messages import Join
from fleetcast_sender.engine.needs import Needs
from fleetcast_sender.engine.pacing import Pacer, burst_datagrams
from fleetcast_sender.sending.groups import SpareGroups, parse_group, split_range
from fleetcast_sender.sending.link import Link
from fleetcast_sender.sending.sockets import train_limit
from fleetcast_wire.geometry import Geometry

NOTHING = np.zeros(4, np.bool_)


def join(window_memory_bytes: int = 1 << 40) -> Join:
    return Join("machines/a", NOTHING, window_memory_bytes=window_memory_bytes, codecs=frozenset({"leopard-rs16"}))


def choose(
    *joins: Join, receivers: int = 4, size: int = 1 << 30, mtu: int = 1500, ip_version: int = 4, **overrides: int
) -> Geometry:
    return choose_geometry(
        joins,
        receiver_count=receivers,
        stream_bytes=size,
        mtu_bytes=mtu,
        ip_version=ip_version,
        overrides=GeometryOverrides(**overrides),
    )


def test_the_usual_geometry_fits_an_mtu_of_1500_over_both_protocols() -> None:
    assert choose(join()) == Geometry(1408, 500, 16, 128, "leopard-rs16")
    assert choose(join(), ip_version=6).symbol_bytes == 1408
    assert choose(join(), receivers=21) == Geometry(1408, 1000, 32, 256, "leopard-rs16")


def test_a_small_mtu_makes_small_symbols_and_a_tiny_one_is_refused() -> None:
    assert choose(join(), mtu=1400).symbol_bytes == 1280
    with pytest.raises(FailedPreconditionError, match="MTU of 576"):
        choose(join(), mtu=576, ip_version=6)


def test_a_path_that_takes_hardly_anything_concerns_its_own_receiver_alone() -> None:
    assert choose(join(), replace(join(), max_payload_bytes=1400)).symbol_bytes == 1344
    assert choose(join(), replace(join(), max_payload_bytes=500)) == choose(join())


def test_an_operator_chooses_every_number_within_what_receivers_can_take() -> None:
    chosen = choose(join(), symbol_bytes=1024, codeword_symbols=200, window_codewords=16)
    assert chosen == Geometry(1024, 200, 16, 64, "leopard-rs16")
    assert choose(join(), mtu=1200, symbol_bytes=1408).symbol_bytes == 1088
    small = choose(join(window_memory_bytes=64 << 20), codeword_symbols=2000, window_codewords=64)
    assert small.window_codewords == 7
    assert choose(join(), size=1 << 40, codeword_symbols=4096, window_codewords=4096).window_codewords == 64
    assert [choose(join(), codeword_symbols=k).parity_symbols for k in (1, 100, 4096)] == [1, 32, 256]


def test_little_memory_makes_short_windows_but_not_for_one_that_has_hardly_any() -> None:
    assert choose(join(), join(window_memory_bytes=32 << 20)).window_codewords == 15
    assert choose(join(), join(window_memory_bytes=1 << 20)).window_codewords == 4


def test_many_receivers_get_long_windows_against_bursts() -> None:
    assert choose(join(), receivers=10_000, size=1 << 34).window_codewords == 128


def test_a_small_image_makes_small_windows() -> None:
    assert choose(join(), size=2_000_000).window_codewords == 3


def test_a_receiver_without_the_codec_means_no_parity() -> None:
    assert choose(join(), Join("machines/b", NOTHING)).parity_symbols == 0


@pytest.mark.parametrize(
    "text", ["224.0.0.1", "224.0.1.1", "10.0.0.1", "ff02::1", "ff05::2", "ff01::1:2", "fe80::1", "x"]
)
def test_groups_of_others_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        parse_group(text)


@pytest.mark.parametrize("text", ["239.192.64.0", "232.1.2.3", "ff05::f1ee:4000", "ff35::8000:1"])
def test_groups_for_organisations_are_taken(text: str) -> None:
    assert str(parse_group(text)) == text


def test_spare_groups_are_leased_once_and_come_back() -> None:
    border, spare = split_range(ipaddress.ip_address("239.192.64.0"), ipaddress.ip_address("239.192.64.7"))
    assert str(border) == "239.192.64.5"
    leased = [spare.lease(), spare.lease()]
    assert [str(group) for group in leased] == ["239.192.64.6", "239.192.64.7"]
    with pytest.raises(ResourceExhaustedError):
        spare.lease()
    spare.release(leased[0])
    assert spare.lease() == leased[0]
    assert isinstance(spare, SpareGroups)


def test_a_link_is_shared_by_what_each_wants() -> None:
    link = Link(1000)
    assert link.share("a", 5000) == 1000
    assert link.share("b", 200) == 200
    assert link.share("a", 5000) == 800
    assert link.share("b", 5000) == 500
    assert link.share("a", 5000) == 500
    link.leave("b")
    assert link.share("a", 400) == 1000


def test_a_link_of_unknown_rate_limits_nobody() -> None:
    assert Link(0).share("a", 5000) == 0


def test_pacing_keeps_the_mean_and_makes_small_delays_good() -> None:
    pacer, now, sent = Pacer(), 1.0, 0
    while now < 2.0:
        delay = pacer.delay(now)
        now += delay + 0.001 if delay > 0 else 0  # every wake-up is late
        pacer.sent(24_000, 100_000_000, now)
        sent += 24_000
    assert sent == pytest.approx(100_000_000, rel=0.02)


def test_after_a_long_sleep_no_long_burst_follows() -> None:
    pacer = Pacer()
    pacer.sent(24_000, 1_000_000_000, 1.0)
    burst = 0
    while pacer.delay(5.0) <= 0:
        pacer.sent(24_000, 1_000_000_000, 5.0)
        burst += 24_000
    assert burst <= 11_000_000


def test_bursts_take_a_millisecond_and_trains_are_what_the_kernel_takes() -> None:
    assert burst_datagrams(10e6, 1e9, 11_808, 44, 176) == 8
    assert burst_datagrams(0.5e9, 1e9, 11_808, 44, 176) == 42
    assert burst_datagrams(0.9e9, 1e9, 11_808, 44, 176) == 88
    assert burst_datagrams(1e9, 1e9, 11_808, 44, 176) == 88
    assert burst_datagrams(10e9, 1e9, 11_808, 44, 176) == 176
    assert burst_datagrams(1e9, 10e9, 11_808, 44, 1408) == 220
    assert train_limit(1448) == 44
    assert train_limit(8936) == 7


def test_needs_are_counted_for_those_that_count() -> None:
    needs = Needs(np.array([10, 0, 20, 30], np.int64))
    needs.put(1, np.array([True, False, False, False]))
    needs.put(2, NOTHING)
    needs.count(1)
    needs.count(2)
    assert needs.counts.tolist() == [1, 0, 2, 2]
    assert needs.lacking_bytes(1) == 50
    needs.put(2, np.array([True, True, True, False]))
    assert needs.counts.tolist() == [0, 0, 1, 2]
    needs.uncount(1)
    needs.uncount(2)
    assert not needs.counts.any()
    needs.remove(1)
    assert needs.first_bytes(needs.lacking(2), 1).tolist() == [False, False, False, True]
