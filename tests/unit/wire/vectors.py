"""What `protos/wire/vectors.json` holds, computed by this build: `python -m tests.unit.wire.vectors` prints it anew."""

import hashlib
import json
from typing import Any

import numpy as np
from fleetcast_wire.chunkset import pack_chunk_set
from fleetcast_wire.fingerprints import Fingerprinter
from fleetcast_wire.geometry import Geometry, PassLayout
from fleetcast_wire.keys import SenderKeys
from fleetcast_wire.manifest import ZERO_DIGEST, Manifest, chunk_digest
from fleetcast_wire.packet import Fingerprints, Kind, Mark, MarkedWindow, pack_fingerprints, pack_mark
from fleetcast_wire.parity.fec import CODECS
from fleetcast_wire.runs import pack_runs
from fleetcast_wire.seal import Sealer

LARGE_SET = "28b52ffd60c4087d0000280092244900020073ae2a8ca0ef88"
"""One frame among many that hold the same bitmap: libraries need not compress alike."""


def pattern(label: str, size_bytes: int) -> bytes:
    """Returns the bytes that vectors call a pattern: SHA-256 of `label:0`, `label:1`, … end to end, cut to size."""
    blocks = (hashlib.sha256(f"{label}:{block}".encode()).digest() for block in range(-(-size_bytes // 32)))
    return b"".join(blocks)[:size_bytes]


def compute() -> dict[str, Any]:
    """Returns the vectors."""
    return {
        "manifest": _manifest(),
        "chunk_set": _chunk_set(),
        "runs": _runs(),
        "layout": _layout(),
        "datagrams": _datagrams(),
        "repair": _repair(),
        "parity": {name: [_parity(name, 5, 256), _parity(name, 40, 32)] for name in sorted(CODECS)},
    }


def _manifest() -> dict[str, Any]:
    contents = [pattern("chunk 0", 4096), bytes(4096), pattern("chunk 2", 100)]
    digests = [chunk_digest(content) if any(content) else ZERO_DIGEST for content in contents]
    rows = np.array([list(digest) for digest in digests], np.uint8)
    return {
        "size_bytes": 8292,
        "chunk_size_bytes": 4096,
        "chunks": ["pattern chunk 0", "zeros", "pattern chunk 2"],
        "digests": [digest.hex() for digest in digests],
        "digest": Manifest(8292, 4096, rows).digest,
    }


def _chunk_set() -> dict[str, Any]:
    members = [0, 3, 8, 9, 10]
    bitmap, compressed = pack_chunk_set(np.isin(np.arange(11), members))
    return {
        "chunk_count": 11,
        "members": members,
        "bitmap": bitmap.hex(),
        "compressed": compressed,
        "large": {"chunk_count": 20_000, "first": 9, "last": 16_998, "every": 3, "frame": LARGE_SET},
    }


def _runs() -> dict[str, Any]:
    deficits = [0, 0, 0, 2, 2, 0, 1]
    run_values, run_lengths = pack_runs(np.array(deficits, np.int32))
    return {"deficits": deficits, "run_values": run_values, "run_lengths": run_lengths}


def _repair() -> dict[str, Any]:
    """Returns what follows one row of predicted parity and the reports of two receivers on round 1."""
    reports = [[2, 0, 1], [0, 0, 3]]
    most = [max(column) for column in zip(*reports, strict=True)]
    symbols = [row * 3 + codeword for row in range(1, 4) for codeword in range(3) if row < 1 + most[codeword]]
    return {"codewords": 3, "rows_sent": 1, "deficits": reports, "parity_symbols": symbols}


def _layout() -> dict[str, Any]:
    geometry = Geometry(symbol_bytes=512, codeword_symbols=4, window_codewords=2)
    stored = [1000, 0, 3000, 700]
    layout = PassLayout(geometry, np.array([0, 2, 3]), np.array(stored, np.int64))
    shapes = [layout.window(window) for window in range(layout.window_count)]
    return {
        "symbol_bytes": 512,
        "codeword_symbols": 4,
        "window_codewords": 2,
        "stored_size_bytes": stored,
        "chunks": [0, 2, 3],
        "offsets": layout.offsets.tolist(),
        "windows": [
            {"symbols": shape.symbol_count, "codewords": shape.codewords, "rows": shape.rows} for shape in shapes
        ],
        "chunk_windows": [list(layout.chunk_windows(position)) for position in range(3)],
    }


def _datagrams() -> dict[str, Any]:
    vector, seed = pattern("initialization vector", 12), pattern("signing key", 32)
    keys = SenderKeys.of(pattern("key", 32), vector, 0xF1EE7CA5, seed)
    sealer = Sealer(keys, 512, 2)
    train = bytes(
        sealer.seal_symbols(Kind.SOURCE, 1, 2, np.array([3, 4]), [pattern("symbol 3", 512), pattern("symbol 4", 512)])
    )
    parity = bytes(sealer.seal_symbols(Kind.PARITY, 1, 2, np.array([0]), [pattern("parity 0", 512)]))
    sealer.position = 2, 5
    fingerprints = _fingerprints(Kind.SOURCE, [3, 4], "symbol")
    parity_fingerprints = _fingerprints(Kind.PARITY, [0, 3], "parity")
    body = pack_mark(Mark((MarkedWindow(1, 2, 5), MarkedWindow(2, 1, 3)), 9))
    ended = pack_mark(Mark((), 9, ended=True))
    return {
        "key": keys.key.hex(),
        "initialization_vector": keys.initialization_vector.hex(),
        "tag": keys.tag,
        "signing_key": "pattern signing key",
        "verification_key": keys.verification_key.hex(),
        "position": [2, 5],
        "symbol_bytes": 512,
        "first_counter": 0,
        "source": {
            "pass": 1,
            "window": 2,
            "symbols": [3, 4],
            "bodies": ["pattern symbol 3", "pattern symbol 4"],
            "datagrams": [train[: len(train) // 2].hex(), train[len(train) // 2 :].hex()],
        },
        "parity": {"pass": 1, "window": 2, "symbol": 0, "body": "pattern parity 0", "datagram": parity.hex()},
        "fingerprints": {
            "pass": 1,
            "window": 2,
            "seed": "pattern seed",
            "symbols": [3, 4],
            "values": fingerprints.values.tolist(),
            "body": pack_fingerprints(fingerprints).hex(),
            "datagram": sealer.seal_fingerprints(1, fingerprints).hex(),
        },
        "parity_fingerprints": {
            "pass": 1,
            "window": 2,
            "seed": "pattern seed",
            "symbols": [0, 3],
            "bodies": ["pattern parity 0", "pattern parity 3"],
            "values": parity_fingerprints.values.tolist(),
            "body": pack_fingerprints(parity_fingerprints).hex(),
            "datagram": sealer.seal_fingerprints(1, parity_fingerprints).hex(),
        },
        "mark": {
            "pass": 1,
            "windows": [[1, 2, 5], [2, 1, 3]],
            "window_count": 9,
            "ended": False,
            "body": body.hex(),
            "datagram": sealer.seal_mark(1, body).hex(),
        },
        "ended_mark": {
            "pass": 1,
            "windows": [],
            "window_count": 9,
            "ended": True,
            "body": ended.hex(),
            "datagram": sealer.seal_mark(1, ended).hex(),
        },
    }


def _fingerprints(kind: Kind, symbols: list[int], label: str) -> Fingerprints:
    seed, numbers = pattern("seed", 16), np.array(symbols)
    values = Fingerprinter(seed, 512).of([pattern(f"{label} {symbol}", 512) for symbol in symbols], numbers)
    return Fingerprints(kind, 2, seed, numbers, values)


def _parity(codec: str, rows: int, parity_symbols: int) -> dict[str, Any]:
    source = [pattern(f"row {row}", 512) for row in range(rows)]
    return {
        "rows": rows,
        "symbol_bytes": 512,
        "source": [f"pattern row {row}" for row in range(rows)],
        "parity_symbols": parity_symbols,
        "first_parity": [symbol.hex() for symbol in CODECS[codec].encode(source, parity_symbols)[:3]],
    }


if __name__ == "__main__":
    print(json.dumps(compute(), indent=1))
