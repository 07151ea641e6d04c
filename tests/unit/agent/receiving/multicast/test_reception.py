import gc
import weakref
from collections.abc import Iterable, Iterator
from random import Random

import numpy as np
import pytest
from fleetcast_wire.geometry import Geometry
from fleetcast_wire.keys import SenderKeys
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.unit.agent.receiving.receiving import MemoryReceiver
from tests.unit.agent.receiving.transmitting import PassSender, StoredImage, make_image

SMALL = Geometry(512, codeword_symbols=40, window_codewords=4, parity_symbols=32, codec="leopard-rs16")
PLAIN = Geometry(512, codeword_symbols=40, window_codewords=4)


def pair(image: StoredImage, geometry: Geometry = SMALL, **options: int) -> tuple[PassSender, MemoryReceiver]:
    keys = SenderKeys.fresh()
    return PassSender(keys, geometry, image), MemoryReceiver(keys, geometry, image, **options)


def begin(sender: PassSender, receiver: MemoryReceiver, chunks: Iterable[int] | None = None) -> int:
    """Plan a pass of the chunks that the receiver lacks; return its windows."""
    layout = sender.start_pass(receiver.lacking if chunks is None else chunks)
    receiver.reception.start_pass(sender.pass_number, layout)
    return layout.window_count


def lossy(datagrams: Iterable[bytes], random: Random, loss: float) -> Iterator[bytes]:
    return (datagram for datagram in datagrams if random.random() >= loss)


def repair(sender: PassSender, receiver: MemoryReceiver, random: Random, loss: float, rounds: int = 8) -> None:
    """Answer the receiver's reports until it is silent."""
    for _ in range(rounds):
        reports = receiver.take_reports()
        if not reports:
            return
        for report in reports:
            if sender.geometry.parity_symbols:
                answer: Iterable[bytes] = sender.parity(report.window, report.deficits)
            else:
                answer = sender.source(report.window, np.flatnonzero(report.deficits).tolist())
            receiver.receive(lossy(list(answer), random, loss))
        receiver.receive([sender.mark(*sorted({report.window for report in reports}))])


def test_an_image_arrives_without_loss() -> None:
    image = make_image(1, 700_000)
    sender, receiver = pair(image)
    for window in range(begin(sender, receiver)):
        receiver.receive(sender.source(window))
        receiver.receive([sender.mark(window)])
    assert receiver.complete
    assert receiver.reports == []
    assert receiver.reception.counts.absent_datagram_count == 0
    receiver.reception.end_pass(1)
    receiver.work()
    assert receiver.settled == [1]


@pytest.mark.parametrize("geometry", [SMALL, PLAIN])
def test_losses_are_repaired_in_the_pass(geometry: Geometry) -> None:
    image, random = make_image(2, 900_000), Random(7)
    sender, receiver = pair(image, geometry)
    for window in range(begin(sender, receiver)):
        receiver.receive(lossy(sender.source(window), random, 0.05))
        receiver.receive([sender.mark(window)])
        repair(sender, receiver, random, 0.05)
    assert receiver.complete
    assert receiver.damaged == []
    assert receiver.reception.counts.absent_datagram_count > 0


def test_what_arrived_is_delivered_before_its_window_is_complete() -> None:
    image = make_image(3, 400_000, chunk_bytes=8192)
    sender, receiver = pair(image)
    begin(sender, receiver)
    receiver.receive(list(sender.source(0))[:100])
    assert len(receiver.arrivals) > 2


def test_a_round_is_reported_once_although_marks_repeat() -> None:
    image = make_image(4, 300_000)
    sender, receiver = pair(image)
    begin(sender, receiver)
    receiver.receive(list(sender.source(0))[:-2])
    receiver.receive([sender.mark(0), sender.mark(0, complete_round=False), sender.mark(0, complete_round=False)])
    assert [report.round for report in receiver.take_reports()] == [1]
    receiver.receive([sender.mark(0)])
    assert [report.round for report in receiver.take_reports()] == [2]


def test_a_window_that_marks_no_longer_name_is_given_up() -> None:
    image = make_image(5, 300_000)
    sender, receiver = pair(image)
    begin(sender, receiver)
    receiver.receive(list(sender.source(0))[:-2])
    receiver.receive([sender.mark(0)])
    receiver.receive([sender.mark(1)])
    receiver.take_reports()
    arrived = len(receiver.arrivals)
    receiver.receive(sender.source(0, [158, 159]))
    assert len(receiver.arrivals) == arrived
    assert receiver.lacking


def test_a_window_that_lacks_more_than_a_quarter_asks_for_nothing() -> None:
    image = make_image(6, 300_000)
    sender, receiver = pair(image)
    begin(sender, receiver)
    receiver.receive(list(sender.source(0))[:100])
    receiver.receive([sender.mark(0)])
    assert receiver.reports == []


def test_a_late_joiner_takes_what_it_can_and_asks_no_repair_of_what_it_missed() -> None:
    image = make_image(7, 600_000, chunk_bytes=8192)
    sender, receiver = pair(image)
    windows = begin(sender, receiver)
    receiver.receive(list(sender.source(1))[60:])
    assert receiver.arrivals
    receiver.receive([sender.mark(1)])
    assert receiver.reports == []
    for window in range(2, windows):
        receiver.receive(sender.source(window))
    receiver.reception.end_pass(1)
    receiver.work()
    for window in range(begin(sender, receiver)):
        receiver.receive(sender.source(window))
    assert receiver.complete
    assert len(set(receiver.arrivals)) == len(receiver.arrivals)


def test_windows_without_wanted_chunks_are_not_opened_but_counted() -> None:
    image = make_image(8, 900_000, chunk_bytes=8192)
    sender, receiver = pair(image)
    chunks = receiver.lacking
    receiver.wanted[:] = False
    receiver.wanted[chunks[-1]] = True
    for window in range(begin(sender, receiver, chunks)):
        receiver.receive(sender.source(window))
    assert receiver.arrivals == [chunks[-1]]
    assert receiver.reception.counts.absent_datagram_count == 0


def test_symbols_that_overtake_the_plan_of_their_pass_are_not_lost() -> None:
    image = make_image(12, 300_000)
    sender, receiver = pair(image)
    layout = sender.start_pass(receiver.lacking)
    receiver.receive(sender.source(0))
    assert receiver.arrivals == []
    receiver.reception.start_pass(1, layout)
    for window in range(1, layout.window_count):
        receiver.receive(sender.source(window))
    receiver.work()
    assert receiver.complete
    assert receiver.reception.counts.absent_datagram_count == 0


def test_a_full_ring_drops_whole_windows_that_return_in_the_next_pass() -> None:
    image = make_image(9, 900_000)
    sender, receiver = pair(image, ring=2)
    receiver.hold = True
    windows = begin(sender, receiver)
    for window in range(windows):
        receiver.receive(sender.source(window))
        receiver.receive([sender.mark(window)])
    assert 1 <= receiver.reception.counts.dropped_window_count <= windows - 2
    assert receiver.reports == []
    receiver.reception.end_pass(1)
    receiver.hold = False
    receiver.settle()
    assert receiver.lacking
    for window in range(begin(sender, receiver)):
        receiver.receive(sender.source(window))
    assert receiver.complete


def test_a_pass_that_goes_on_without_this_machine_is_taken_no_further() -> None:
    sender, receiver = pair(make_image(6, 700_000))
    windows = begin(sender, receiver)
    receiver.receive(sender.source(0))
    receiver.reception.end_pass(1)
    receiver.work()
    assert receiver.settled == [1]
    wanted = receiver.wanted.copy()
    for window in range(1, windows):
        receiver.receive(sender.source(window))
    receiver.work()
    assert windows > 1
    assert (receiver.wanted == wanted).all()
    assert receiver.reception.counts.dropped_window_count == 0


def test_damaged_content_is_wanted_again() -> None:
    image = make_image(10, 300_000)
    sender, receiver = pair(image)
    bad = receiver.lacking[1]
    good = image.stored[bad]
    image.stored[bad] = bytes(len(good))
    for window in range(begin(sender, receiver)):
        receiver.receive(sender.source(window))
    assert receiver.damaged == [bad]
    assert receiver.lacking == [bad]
    image.stored[bad] = good
    receiver.reception.end_pass(1)
    for window in range(begin(sender, receiver)):
        receiver.receive(sender.source(window))
    assert receiver.complete


def test_forged_replayed_and_damaged_datagrams_are_counted_and_change_nothing() -> None:
    image, random = make_image(11, 400_000), Random(3)
    sender, receiver = pair(image)
    stranger = PassSender(SenderKeys.of(bytes(32), bytes(12), sender.keys.tag, bytes(32)), SMALL, image)
    for window in range(begin(sender, receiver)):
        stranger.start_pass(range(1)) if window == 0 else None
        genuine = list(sender.source(window))
        mixed = list(genuine)
        for datagram in genuine:
            flipped = bytearray(datagram)
            flipped[random.randrange(len(flipped))] ^= 1 << random.randrange(8)
            mixed += [bytes(flipped), random.randbytes(len(datagram)), datagram, datagram[: random.randrange(60)]]
        random.shuffle(mixed)
        receiver.receive(mixed)
        receiver.receive(stranger.source(0))
        receiver.receive([sender.mark(window)])
        repair(sender, receiver, random, 0.0)
    assert receiver.complete
    assert receiver.damaged == []
    assert receiver.reception.counts.rejected_datagram_count > 100


def test_a_closed_reception_lets_go_of_its_windows() -> None:
    image = make_image(1, 700_000)
    sender, receiver = pair(image)
    begin(sender, receiver)
    receiver.receive(list(sender.source(0))[:-2])
    window = receiver.reception._ring.window(0)
    assert window is not None
    memory = weakref.ref(window.memory)
    gc.disable()
    try:
        del window
        receiver.reception.close()
        assert memory() is None
    finally:
        gc.enable()


def test_a_forged_symbol_never_displaces_the_genuine_one() -> None:
    image = make_image(13, 80_000)
    sender, receiver = pair(image)
    stranger = PassSender(SenderKeys.of(bytes(32), bytes(12), sender.keys.tag, bytes(32)), SMALL, image)
    begin(sender, receiver)
    stranger.start_pass(receiver.lacking)
    forged, genuine = list(stranger.source(0)), list(sender.source(0))
    receiver.receive(datagram for both in zip(forged, genuine, strict=True) for datagram in both)
    assert receiver.complete
    assert receiver.reception.counts.rejected_datagram_count == len(forged)
    assert receiver.reception.counts.absent_datagram_count == 0


def test_a_window_is_never_begun_by_a_forged_symbol() -> None:
    image = make_image(14, 900_000)
    sender, receiver = pair(image, ring=2)
    stranger = PassSender(SenderKeys.of(bytes(32), bytes(12), sender.keys.tag, bytes(32)), SMALL, image)
    windows = begin(sender, receiver)
    stranger.start_pass(receiver.lacking)
    for window in reversed(range(windows)):
        receiver.receive(stranger.source(window))
    for window in range(windows):
        receiver.receive(sender.source(window))
    assert receiver.complete


@given(st.lists(st.tuples(st.binary(max_size=600), st.integers(0, 3)), max_size=30), st.integers(0, 2**32))
def test_no_datagram_is_too_strange(parts: list[tuple[bytes, int]], seed: int) -> None:
    image = make_image(15, 80_000)
    sender, receiver = pair(image)
    begin(sender, receiver)
    stride = receiver.opener.stride
    genuine = next(sender.source(0))
    datagrams = []
    for content, kind in parts:
        header = genuine[:2] + content[:2].ljust(2, b"\0") + genuine[4:8]
        datagrams.append(
            [content, content.ljust(stride, b"x")[:stride], (header + content).ljust(stride)[:stride]][kind % 3]
        )
    receiver.receive(datagrams)
    assert receiver.arrivals == []
    assert receiver.reception.counts.datagram_count == 0
    for window in range(sender.layout.window_count):
        receiver.receive(sender.source(window))
    assert receiver.complete


@settings(max_examples=examples(40))
@given(
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.02, 0.1, 0.3]),
    duplication=st.sampled_from([0.0, 0.2]),
    shuffle=st.sampled_from([0, 3, 50]),
    size_bytes=st.integers(1, 400_000),
    chunk_bytes=st.sampled_from([4096, 65536, 131072]),
    plain=st.booleans(),
    slots=st.sampled_from([1, 7, 64]),
)
def test_any_mix_of_loss_duplication_and_order_ends_with_the_exact_bytes(
    *,
    seed: int,
    loss: float,
    duplication: float,
    shuffle: int,
    size_bytes: int,
    chunk_bytes: int,
    plain: bool,
    slots: int,
) -> None:
    image, random = make_image(seed, size_bytes, chunk_bytes), Random(seed)
    sender, receiver = pair(image, PLAIN if plain else SMALL, slots=slots)
    for _ in range(40):
        if not receiver.lacking:
            break
        for window in range(begin(sender, receiver)):
            datagrams = list(lossy(sender.source(window), random, loss))
            datagrams += [d for d in datagrams if random.random() < duplication]
            if shuffle:
                order = sorted(range(len(datagrams)), key=lambda index: index + random.random() * shuffle)
                datagrams = [datagrams[index] for index in order]
            receiver.receive(datagrams)
            receiver.receive([sender.mark(window)])
            repair(sender, receiver, random, loss)
        receiver.reception.end_pass(sender.pass_number)
        receiver.work()
        assert receiver.settled[-1] == sender.pass_number
        loss *= 0.8
    assert receiver.complete
    assert receiver.damaged == []


def test_losses_in_the_first_train_count_even_if_its_mark_is_read_first() -> None:
    sender, receiver = pair(make_image(1, 700_000))
    begin(sender, receiver)
    symbols, mark = list(sender.source(0)), sender.mark(0)
    receiver.receive([mark])
    receiver.receive([*symbols[:5], *symbols[8:]])
    assert receiver.reception.counts.absent_datagram_count == 3
