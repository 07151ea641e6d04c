"""The vectors that stand beside WIRE.md, for this and for other implementations."""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fleetcast_sender.engine.repair import WindowRepair
from fleetcast_wire.chunkset import unpack_chunk_set
from fleetcast_wire.geometry import Geometry
from fleetcast_wire.parity.fec import CODECS

from tests.unit.wire.vectors import compute, pattern

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[3] / "protos" / "wire" / "vectors.json").read_text(encoding="utf-8")
)


def test_this_build_computes_the_published_vectors() -> None:
    assert compute() == VECTORS


def test_the_sealed_datagrams_are_plain_aes_gcm_as_specified() -> None:
    vectors = VECTORS["datagrams"]
    cipher = AESGCM(bytes.fromhex(vectors["key"]))
    vector = bytes.fromhex(vectors["initialization_vector"])
    source = zip(vectors["source"]["datagrams"], vectors["source"]["bodies"], strict=True)
    names = ("fingerprints", "parity_fingerprints", "mark", "ended_mark")
    signed = [(vectors[name]["datagram"], vectors[name]["body"]) for name in names]
    parity = (vectors["parity"]["datagram"], vectors["parity"]["body"])
    verification_key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(vectors["verification_key"]))
    for counter, (datagram_hex, body) in enumerate([*source, parity, *signed]):
        datagram = bytes.fromhex(datagram_hex)
        nonce = vector[:4] + (int.from_bytes(vector[4:], "big") ^ counter).to_bytes(8, "big")
        label = body.removeprefix("pattern ")
        expected = pattern(label, 512) if label != body else bytes.fromhex(body)
        opened = cipher.decrypt(nonce, datagram[24:], datagram[:24])
        if label == body:
            opened, signature = opened[:-64], opened[-64:]
            verification_key.verify(signature, datagram[:24] + opened)
            assert struct.unpack(">II", datagram[8:16]) == tuple(vectors["position"])
        assert opened == expected
        assert datagram[16:24] == counter.to_bytes(8, "big")


def test_the_published_fingerprints_are_what_the_page_defines() -> None:
    for name, label in (("fingerprints", "symbol"), ("parity_fingerprints", "parity")):
        vectors = VECTORS["datagrams"][name]
        stream = hashlib.shake_128(b"fleetcast fingerprints 2" + pattern("seed", 16)).digest(8 * 129)
        factors = struct.unpack("<129Q", stream)
        for symbol, value in zip(vectors["symbols"], vectors["values"], strict=True):
            words = struct.unpack("<128I", pattern(f"{label} {symbol}", 512))
            total = factors[0] + sum(factor * word for factor, word in zip(factors[1:], words, strict=True))
            assert value == total % (1 << 64) >> 48


@pytest.mark.parametrize("name", sorted(CODECS))
def test_the_published_parity_gives_lost_rows_back(name: str) -> None:
    for vectors in VECTORS["parity"][name]:
        source = [pattern(label.removeprefix("pattern "), vectors["symbol_bytes"]) for label in vectors["source"]]
        parity = {row: bytes.fromhex(symbol) for row, symbol in enumerate(vectors["first_parity"])}
        arrived = {row: symbol for row, symbol in enumerate(source) if row not in (0, 2, 3)}
        decoded = CODECS[name].decode(vectors["rows"], vectors["parity_symbols"], arrived, parity)
        assert [bytes(decoded[row]) for row in (0, 2, 3)] == [source[row] for row in (0, 2, 3)]


BASIS = "0001 ACCA 3C0E 163E C582 ED2E 914C 4012 6C98 10D8 6A72 B900 FDB8 FB34 FF38 991E"


class Field:
    """GF(2^16) as section 8 defines it, one number at a time."""

    def __init__(self) -> None:
        basis = [int(element, 16) for element in BASIS.split()]
        self.element_of = [0]
        for vector in basis:
            self.element_of += [element ^ vector for element in self.element_of]
        self.number_of = {element: number for number, element in enumerate(self.element_of)}
        self.powers, element = [1], 2
        while element != 1:
            self.powers.append(element)
            element = element << 1 ^ (0x1002D if element >> 15 else 0)
        self.logarithms = {element: exponent for exponent, element in enumerate(self.powers)}

    def multiply(self, first: int, second: int, *, divide: bool = False) -> int:
        if not first or not second:
            return 0
        exponents = [self.logarithms[self.element_of[number]] for number in (first, second)]
        exponent = exponents[0] - exponents[1] if divide else sum(exponents)
        return self.number_of[self.powers[exponent % len(self.powers)]]


def test_the_published_parity_is_what_the_page_defines() -> None:
    field = Field()
    for vectors in VECTORS["parity"]["leopard-rs16"]:
        rows, parity_symbols = vectors["rows"], vectors["parity_symbols"]
        source = [pattern(label.removeprefix("pattern "), 64) for label in vectors["source"]]
        powers = [1 << (number - 1).bit_length() for number in (rows, parity_symbols)]
        for p, symbol in enumerate(vectors["first_parity"]):
            elements = [0] * 32
            for s, row in enumerate(source):
                m = min(powers)
                top, bottom = ((m + s) // m, p ^ (m + s)) if m == powers[1] else ((m + p) // m, (m + p) ^ s)
                factor = field.multiply(top, bottom, divide=True)
                for place in range(32):
                    elements[place] ^= field.multiply(factor, row[place] | row[place + 32] << 8)
            low, high = bytes(element & 0xFF for element in elements), bytes(element >> 8 for element in elements)
            assert (low + high).hex() == symbol[:128]


def test_the_published_frame_holds_the_published_set() -> None:
    vectors = VECTORS["chunk_set"]["large"]
    members = unpack_chunk_set(bytes.fromhex(vectors["frame"]), True, vectors["chunk_count"])
    assert members.nonzero()[0].tolist() == list(range(vectors["first"], vectors["last"] + 1, vectors["every"]))


def test_the_published_repair_is_what_the_sender_sends() -> None:
    vectors = VECTORS["repair"]
    geometry = Geometry(512, codeword_symbols=100, window_codewords=3, parity_symbols=64, codec="leopard-rs16")
    repair = WindowRepair(0, geometry.shape(300), geometry, predicted=vectors["rows_sent"], members=9, opened_at=0.0)
    repair.take(300)
    repair.complete_round(0.0)
    for deficits in vectors["deficits"]:
        repair.report(1, np.array(deficits, np.int32), 0.0, 0.03)
    assert repair.answer()
    assert repair.take(300).tolist() == vectors["parity_symbols"]
