"""Headers, marks, seals and manifests: sections 2, 5 and 6 of WIRE.md."""

import contextlib

import numpy as np
import pytest
from fleetcast_wire.ciphers import PortableCipher, TrainCipher, best_cipher
from fleetcast_wire.errors import ManifestError, PacketError
from fleetcast_wire.keys import SenderKeys
from fleetcast_wire.manifest import DIGEST_BYTES, Manifest, chunk_digest
from fleetcast_wire.memory import GatheredSymbols, SymbolMemory
from fleetcast_wire.packet import (
    MAX_MARKED_WINDOWS,
    Header,
    Kind,
    Mark,
    MarkedWindow,
    datagram_bytes,
    pack_header,
    pack_mark,
    unpack_header,
    unpack_mark,
)
from fleetcast_wire.seal import Opener, Sealer
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

SYMBOL_BYTES = 512
U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))

headers = st.builds(Header, st.sampled_from(Kind), U16, U32, U32, U32, U64)
marks = st.builds(
    Mark,
    st.lists(st.builds(MarkedWindow, U32, U16, U16), max_size=MAX_MARKED_WINDOWS).map(tuple),
    U32,
    st.booleans(),
)


@given(headers)
def test_a_header_survives_packing(header: Header) -> None:
    assert unpack_header(pack_header(header) + bytes(16)) == header


@given(marks)
def test_a_mark_survives_packing(mark: Mark) -> None:
    assert unpack_mark(pack_mark(mark)) == mark


@given(st.binary(max_size=700))
def test_no_bytes_raise_anything_but_a_packet_error(data: bytes) -> None:
    opener = Opener(SenderKeys.fresh(), SYMBOL_BYTES, 1)
    for unpack in (unpack_header, unpack_mark, opener.open):
        with contextlib.suppress(PacketError):
            unpack(data)


def test_a_mark_of_too_many_windows_is_refused() -> None:
    windows = tuple(MarkedWindow(window, 1, 0) for window in range(MAX_MARKED_WINDOWS + 1))
    with pytest.raises(PacketError):
        pack_mark(Mark(windows, 99))


CIPHERS: list[type[TrainCipher]] = [PortableCipher, *({best_cipher()} - {PortableCipher})]


def _train(sealer: Sealer, count: int) -> tuple[list[bytes], memoryview]:
    payloads = [bytes([number]) * SYMBOL_BYTES for number in range(count)]
    symbols = np.arange(count, dtype=np.int64) + 7
    return payloads, sealer.seal_symbols(Kind.SOURCE, 3, 5, symbols, payloads)


def _places(count: int) -> tuple[SymbolMemory, NDArray[np.int64]]:
    """Returns room for symbols, of which those with odd numbers are used."""
    return SymbolMemory(SYMBOL_BYTES, 2 * count), np.arange(1, 2 * count, 2)


@pytest.mark.parametrize("opening", CIPHERS)
@pytest.mark.parametrize("sealing", CIPHERS)
def test_a_train_opens_into_its_places_and_counts_on(sealing: type[TrainCipher], opening: type[TrainCipher]) -> None:
    keys = SenderKeys.fresh()
    sealer, opener = Sealer(keys, SYMBOL_BYTES, 8, sealing), Opener(keys, SYMBOL_BYTES, 8, opening)
    for round_number in range(3):
        payloads, train = _train(sealer, 8)
        opener.buffer[: len(train)] = train
        places, symbols = _places(8)
        assert opener.open_symbols(np.arange(8), places, symbols) == []
        assert [bytes(view) for view in places.views[1::2]] == payloads
        assert unpack_header(train) == Header(Kind.SOURCE, 3, keys.tag, 5, 7, 8 * round_number)
    assert sealer.counter == 24


@pytest.mark.parametrize("cipher", CIPHERS)
def test_symbols_go_out_of_memory_and_into_it_by_their_numbers(cipher: type[TrainCipher]) -> None:
    keys = SenderKeys.fresh()
    sealer, opener = Sealer(keys, SYMBOL_BYTES, 4, cipher), Opener(keys, SYMBOL_BYTES, 4, cipher)
    source, target = SymbolMemory(SYMBOL_BYTES, 9), SymbolMemory(SYMBOL_BYTES, 9)
    source.content[:] = np.random.default_rng(1).bytes(len(source.content))
    target.content[:] = bytes(len(target.content))
    numbers = np.array([8, 2, 5])
    train = sealer.seal_symbols(Kind.SOURCE, 1, 0, numbers, source)
    opener.buffer[: len(train)] = train
    assert opener.open_symbols(np.array([2, 0, 1]), target, numbers[[2, 0, 1]]) == []
    for number in range(9):
        expected = source.views[number] if number in numbers else bytes(SYMBOL_BYTES)
        assert target.views[number] == expected


@given(st.lists(st.integers(0, 40), max_size=6), st.sampled_from([0, 1, 7, 1408, 3000]))
def test_symbols_are_gathered_from_any_parts_of_their_stream(sizes: list[int], unit: int) -> None:
    parts = [np.random.default_rng(number).bytes(size * unit) for number, size in enumerate(sizes)]
    stream = b"".join(parts)
    count = -(-len(stream) // SYMBOL_BYTES)
    symbols = GatheredSymbols(SYMBOL_BYTES, count)
    arrived = 0
    for part in parts:
        symbols.append(part)
        arrived += len(part)
        assert len(symbols) == arrived // SYMBOL_BYTES
    symbols.finish()
    assert len(symbols) == count
    assert b"".join(symbols.chosen(np.arange(count))) == stream.ljust(count * SYMBOL_BYTES, b"\0")


@pytest.mark.parametrize("cipher", CIPHERS)
def test_gathered_symbols_are_sealed_like_others(cipher: type[TrainCipher]) -> None:
    keys = SenderKeys.fresh()
    stream = np.random.default_rng(1).bytes(9 * SYMBOL_BYTES)
    memory, gathered = SymbolMemory(SYMBOL_BYTES, 9), GatheredSymbols(SYMBOL_BYTES, 9)
    memory.content[:] = stream
    for start in range(0, len(stream), 1000):
        gathered.append(stream[start : start + 1000])
    numbers = np.array([8, 2, 5])
    trains = [
        bytes(Sealer(keys, SYMBOL_BYTES, 4, cipher).seal_symbols(Kind.SOURCE, 1, 0, numbers, symbols))
        for symbols in (memory, gathered)
    ]
    assert trains[0] == trains[1]
    partial = GatheredSymbols(SYMBOL_BYTES, 9)
    partial.append(stream[: 5 * SYMBOL_BYTES])
    for symbols, number in ((gathered, 9), (partial, 5)):
        with pytest.raises(IndexError):
            Sealer(keys, SYMBOL_BYTES, 4, cipher).seal_symbols(Kind.SOURCE, 1, 0, np.array([number]), symbols)


@pytest.mark.parametrize("cipher", CIPHERS[1:])
@pytest.mark.parametrize(
    ("spoil", "taken"),
    [
        ((0, "kind", Kind.PARITY), 0),
        ((2, "pass", 4), 2),
        ((3, "tag", 1), 3),
        ((4, "window", 6), 4),
        ((5, "symbol", 3), 5),  # no further than the one before
        ((5, "symbol", 4_000_000_000), 5),
        ((6, "counter", 77), 6),  # not genuine
        ((7, "symbol", 7), 8),
    ],
)
def test_a_run_goes_as_far_as_nothing_is_special(
    cipher: type[TrainCipher], spoil: tuple[int, str, int], taken: int
) -> None:
    keys = SenderKeys.fresh()
    sealer, opener = Sealer(keys, SYMBOL_BYTES, 8), Opener(keys, SYMBOL_BYTES, 8, cipher)
    memory, places = SymbolMemory(SYMBOL_BYTES, 8), SymbolMemory(SYMBOL_BYTES, 8)
    memory.content[:] = np.random.default_rng(1).bytes(8 * SYMBOL_BYTES)
    train = sealer.seal_symbols(Kind.SOURCE, 3, 5, np.arange(8), memory)
    beginning, held = bytes(train[:12]), np.zeros(8, np.bool_)
    opener.buffer[:] = train
    opener.headers[spoil[1]][spoil[0]] = spoil[2]
    run = opener.run(places, beginning, held)
    assert run is not None
    assert run.open(np.arange(8)) == taken
    assert held.tolist() == [number < taken for number in range(8)]
    assert places.views[:taken] == memory.views[:taken]
    first, last = (int(opener.headers["counter"][number]) for number in (0, max(0, taken - 1)))
    assert run.take() == ((taken, taken, first, last) if taken else (0, 0, 0, 0))
    assert run.open(np.arange(8)) == 0  # each is held already
    assert run.take().symbol_count == 0


@pytest.mark.parametrize("cipher", CIPHERS[1:])
def test_a_run_stays_within_slots_and_places(cipher: type[TrainCipher]) -> None:
    opener, places = Opener(SenderKeys.fresh(), SYMBOL_BYTES, 4, cipher), SymbolMemory(SYMBOL_BYTES, 4)
    run = opener.run(places, bytes(12), np.zeros(4, np.bool_))
    assert run is not None
    with pytest.raises(IndexError):
        run.open(np.array([4]))
    for beginning, marks in ((bytes(11), 4), (bytes(12), 5)):
        with pytest.raises(ValueError, match="do not fit"):
            opener.run(places, beginning, np.zeros(marks, np.bool_))


@pytest.mark.parametrize("cipher", CIPHERS[1:])
@pytest.mark.parametrize(("slot", "symbol"), [(4, 0), (-9, 0), (0, 4), (0, -9)])
def test_nothing_outside_of_slots_and_memory_is_touched(cipher: type[TrainCipher], slot: int, symbol: int) -> None:
    opener = Opener(SenderKeys.fresh(), SYMBOL_BYTES, 4, cipher)
    with pytest.raises(IndexError):
        opener.open_symbols(np.array([slot]), SymbolMemory(SYMBOL_BYTES, 4), np.array([symbol]))


@pytest.mark.parametrize("cipher", CIPHERS[1:])
def test_symbols_of_another_size_are_refused(cipher: type[TrainCipher]) -> None:
    sealer = Sealer(SenderKeys.fresh(), SYMBOL_BYTES, 4, cipher)
    for payloads in ([bytes(SYMBOL_BYTES - 1)], SymbolMemory(SYMBOL_BYTES - 1, 1)):
        with pytest.raises(ValueError, match="bytes"):
            sealer.seal_symbols(Kind.SOURCE, 1, 0, np.zeros(1, np.int64), payloads)


@given(st.integers(0, datagram_bytes(SYMBOL_BYTES) * 4 - 1), st.integers(1, 255))
@pytest.mark.parametrize("cipher", CIPHERS)
def test_any_changed_byte_fails_its_own_datagram_and_no_other(
    cipher: type[TrainCipher], position: int, change: int
) -> None:
    keys = SenderKeys.fresh()
    sealer, opener = Sealer(keys, SYMBOL_BYTES, 4, cipher), Opener(keys, SYMBOL_BYTES, 4, cipher)
    payloads, train = _train(sealer, 4)
    opener.buffer[:] = train
    opener.buffer[position] ^= change
    places, symbols = _places(4)
    bad = position // datagram_bytes(SYMBOL_BYTES)
    assert opener.open_symbols(np.arange(4), places, symbols) == [bad]
    for slot in {0, 1, 2, 3} - {bad}:
        assert bytes(places.views[symbols[slot]]) == payloads[slot]


@pytest.mark.parametrize("cipher", CIPHERS)
def test_a_well_formed_datagram_under_another_key_does_not_open(cipher: type[TrainCipher]) -> None:
    keys = SenderKeys.fresh()
    forger = Sealer(SenderKeys.of(bytes(32), keys.initialization_vector, keys.tag, bytes(32)), SYMBOL_BYTES, 4)
    opener = Opener(keys, SYMBOL_BYTES, 4, cipher)
    _, train = _train(forger, 4)
    opener.buffer[:] = train
    assert opener.open_symbols(np.arange(4), *_places(4)) == [0, 1, 2, 3]
    with pytest.raises(PacketError):
        opener.open(forger.seal_mark(1, pack_mark(Mark((), 1))))


def test_keys_do_not_show_themselves() -> None:
    keys = SenderKeys.fresh()
    assert keys.key.hex() not in repr(keys)
    assert repr(keys.key) not in repr(keys)


def test_a_manifest_knows_its_zero_chunks_and_its_last_chunk() -> None:
    digests = np.zeros((3, DIGEST_BYTES), np.uint8)
    digests[1] = np.frombuffer(chunk_digest(b"x" * 4096), np.uint8)
    manifest = Manifest(9000, 4096, digests)
    assert manifest.zero.tolist() == [True, False, True]
    assert [manifest.chunk_bytes(chunk) for chunk in range(3)] == [4096, 4096, 808]
    assert manifest.digest != Manifest(9001, 4096, digests).digest
    with pytest.raises(ManifestError):
        manifest.chunk_bytes(3)


@pytest.mark.parametrize(
    ("size_bytes", "chunk_size_bytes", "rows"),
    [(0, 4096, 0), (1, 4095, 1), (1, 8 << 20, 1), (4097, 4096, 1), (4096, 4096, 2)],
)
def test_a_manifest_that_contradicts_itself_is_refused(size_bytes: int, chunk_size_bytes: int, rows: int) -> None:
    with pytest.raises(ManifestError):
        Manifest(size_bytes, chunk_size_bytes, np.zeros((rows, DIGEST_BYTES), np.uint8))
