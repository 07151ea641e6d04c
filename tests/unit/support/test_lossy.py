from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tests.support.lossy import Bursts, Impairment, LossyLink

DATAGRAMS = [index.to_bytes(4, "big") * 8 for index in range(20_000)]


def through(link: LossyLink, datagrams: list[bytes]) -> list[bytes]:
    arrived = []
    for index, datagram in enumerate(datagrams):
        link.send(datagram, index * 1e-5)
        arrived += link.receive(index * 1e-5)
    return arrived + link.receive(1e9)


def test_a_link_without_impairment_keeps_everything_in_order() -> None:
    link = LossyLink(1)
    assert through(link, DATAGRAMS) == DATAGRAMS
    assert link.next_arrival_at is None


def test_the_same_seed_gives_the_same_outcome() -> None:
    impairment = Impairment(loss=0.1, duplication=0.1, reordering=0.1, corruption=0.1, bursts=Bursts(0.02, 10))
    first, second = LossyLink(7, impairment), LossyLink(7, impairment)
    assert through(first, DATAGRAMS) == through(second, DATAGRAMS)
    assert through(LossyLink(8, impairment), DATAGRAMS) != through(LossyLink(7, impairment), DATAGRAMS)


def test_losses_duplicates_and_corruptions_have_their_share() -> None:
    link = LossyLink(3, Impairment(loss=0.05, duplication=0.02, reordering=0.1, corruption=0.03))
    arrived = through(link, DATAGRAMS)
    counts = link.counts
    assert 0.04 < counts.lost / counts.sent < 0.06
    assert 0.015 < counts.duplicated / counts.sent < 0.025
    assert 0.02 < sum(datagram not in known for known in [set(DATAGRAMS)] for datagram in arrived) / counts.sent < 0.04
    assert len(arrived) == counts.delivered == counts.sent - counts.lost + counts.duplicated
    assert [d for d in arrived if d in DATAGRAMS[:50]] != sorted(d for d in arrived if d in DATAGRAMS[:50])


def test_bursts_have_the_mean_length_and_the_share_asked_for() -> None:
    runs = list(Bursts(fraction=0.01, mean_length=20).runs(Random(5), 2_000_000))
    lost = sum(len(run) for run in runs)
    assert 18 < lost / len(runs) < 22
    assert 0.009 < lost / 2_000_000 < 0.011


def test_a_link_loses_in_bursts() -> None:
    link = LossyLink(9, Impairment(bursts=Bursts(fraction=0.05, mean_length=20)))
    arrived = set(through(link, DATAGRAMS))
    missing = [datagram not in arrived for datagram in DATAGRAMS]
    starts = sum(now and not before for before, now in zip([False, *missing], missing, strict=False))
    assert 0.03 < sum(missing) / len(missing) < 0.08
    assert 14 < sum(missing) / starts < 28


def test_nothing_crosses_a_partition() -> None:
    link = LossyLink(2, Impairment(partitions=[(1.0, 3.0)]))
    for now in (0.5, 1.0, 2.9, 3.0):
        link.send(str(now).encode(), now)
    assert link.receive(10.0) == [b"0.5", b"3.0"]


@given(st.integers(), st.lists(st.binary(max_size=40), max_size=40))
def test_any_datagram_can_be_corrupted(seed: int, datagrams: list[bytes]) -> None:
    link = LossyLink(seed, Impairment(corruption=1.0))
    for datagram in datagrams:
        link.send(datagram, 0.0)
    arrived = link.receive(1.0)
    assert len(arrived) == len(datagrams)
    assert all(came != sent for came, sent in zip(arrived, datagrams, strict=True))
