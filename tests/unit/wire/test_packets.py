"""Headers, marks, seals and manifests: sections 2, 5 and 6 of WIRE.md."""

import contextlib

import numpy as np
import pytest
from fleetcast_wire.errors import ManifestError, PacketError
from fleetcast_wire.manifest import DIGEST_BYTES, Manifest, chunk_digest
from fleetcast_wire.packet import (
    MAX_MARKED_WINDOWS,
    Header,
    Kind,
    Mark,
    MarkedWindow,
    pack_header,
    pack_mark,
    unpack_header,
    unpack_mark,
)
from fleetcast_wire.seal import Opener, Sealer, SealKeys, datagram_bytes
from hypothesis import given
from hypothesis import strategies as st

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
    opener = Opener(SealKeys.fresh(), SYMBOL_BYTES, 1)
    for unpack in (unpack_header, unpack_mark, opener.open):
        with contextlib.suppress(PacketError):
            unpack(data)


def test_a_mark_of_too_many_windows_is_refused() -> None:
    windows = tuple(MarkedWindow(window, 1, 0) for window in range(MAX_MARKED_WINDOWS + 1))
    with pytest.raises(PacketError):
        pack_mark(Mark(windows, 99))


def _train(sealer: Sealer, count: int) -> tuple[list[bytes], memoryview]:
    payloads = [bytes([number]) * SYMBOL_BYTES for number in range(count)]
    symbols = np.arange(count, dtype=np.int64) + 7
    return payloads, sealer.seal_symbols(Kind.SOURCE, 3, 5, symbols, payloads)


def test_a_train_opens_into_its_places_and_counts_on() -> None:
    keys = SealKeys.fresh()
    sealer, opener = Sealer(keys, SYMBOL_BYTES, 8), Opener(keys, SYMBOL_BYTES, 8)
    for round_number in range(3):
        payloads, train = _train(sealer, 8)
        opener.buffer[: len(train)] = train
        places = [memoryview(bytearray(SYMBOL_BYTES)) for _ in payloads]
        assert opener.open_symbols(0, places) == []
        assert [bytes(place) for place in places] == payloads
        assert unpack_header(train) == Header(Kind.SOURCE, 3, keys.tag, 5, 7, 8 * round_number)
    assert sealer.counter == 24


@given(st.integers(0, datagram_bytes(SYMBOL_BYTES) * 4 - 1), st.integers(1, 255))
def test_any_changed_byte_fails_its_own_datagram_and_no_other(position: int, change: int) -> None:
    keys = SealKeys.fresh()
    sealer, opener = Sealer(keys, SYMBOL_BYTES, 4), Opener(keys, SYMBOL_BYTES, 4)
    payloads, train = _train(sealer, 4)
    opener.buffer[:] = train
    opener.buffer[position] ^= change
    places = [memoryview(bytearray(SYMBOL_BYTES)) for _ in payloads]
    bad = position // datagram_bytes(SYMBOL_BYTES)
    assert opener.open_symbols(0, places) == [bad]
    for slot in {0, 1, 2, 3} - {bad}:
        assert bytes(places[slot]) == payloads[slot]


def test_a_well_formed_datagram_under_another_key_does_not_open() -> None:
    keys = SealKeys.fresh()
    forger = Sealer(SealKeys(bytes(32), keys.initialization_vector, keys.tag), SYMBOL_BYTES, 4)
    opener = Opener(keys, SYMBOL_BYTES, 4)
    _, train = _train(forger, 4)
    opener.buffer[:] = train
    assert opener.open_symbols(0, [memoryview(bytearray(SYMBOL_BYTES)) for _ in range(4)]) == [0, 1, 2, 3]
    with pytest.raises(PacketError):
        opener.open(forger.seal_mark(1, pack_mark(Mark((), 1))))


def test_keys_do_not_show_themselves() -> None:
    keys = SealKeys.fresh()
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
