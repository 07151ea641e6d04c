"""The vectors that stand beside WIRE.md, for this and for other implementations."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fleetcast_wire.fec import CODECS

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
    marks = [(vectors[name]["datagram"], vectors[name]["body"]) for name in ("mark", "ended_mark")]
    parity = (vectors["parity"]["datagram"], vectors["parity"]["body"])
    for counter, (datagram_hex, body) in enumerate([*source, parity, *marks]):
        datagram = bytes.fromhex(datagram_hex)
        nonce = vector[:4] + (int.from_bytes(vector[4:], "big") ^ counter).to_bytes(8, "big")
        label = body.removeprefix("pattern ")
        expected = pattern(label, 512) if label != body else bytes.fromhex(body)
        assert cipher.decrypt(nonce, datagram[24:], datagram[:24]) == expected
        assert datagram[16:24] == counter.to_bytes(8, "big")


@pytest.mark.parametrize("name", sorted(CODECS))
def test_the_published_parity_gives_lost_rows_back(name: str) -> None:
    vectors = VECTORS["parity"][name]
    source = [pattern(label.removeprefix("pattern "), vectors["symbol_bytes"]) for label in vectors["source"]]
    parity = {row: bytes.fromhex(symbol) for row, symbol in enumerate(vectors["first_parity"])}
    decoded = CODECS[name].decode(5, vectors["parity_symbols"], {1: source[1], 4: source[4]}, parity)
    assert [bytes(decoded[row]) for row in (0, 2, 3)] == [source[row] for row in (0, 2, 3)]
