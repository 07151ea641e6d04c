"""A small sender in memory: makes images, and the datagrams of their passes."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import Random

import numpy as np
import zstandard
from fleetcast_wire.geometry import Geometry, PassLayout
from fleetcast_wire.keys import SenderKeys
from fleetcast_wire.manifest import ZERO_DIGEST, Manifest, chunk_digest
from fleetcast_wire.packet import Kind, Mark, MarkedWindow, pack_mark
from fleetcast_wire.parity.fec import CODECS
from fleetcast_wire.prover import Prover
from fleetcast_wire.seal import Sealer
from numpy.typing import NDArray


@dataclass
class StoredImage:
    """An image as a catalog keeps it."""

    content: bytes
    manifest: Manifest
    stored: list[bytes]
    zstd: NDArray[np.bool_]

    @property
    def sizes(self) -> NDArray[np.int64]:
        return np.array([len(chunk) for chunk in self.stored], np.int64)


def make_image(seed: int, size_bytes: int, chunk_bytes: int = 65536) -> StoredImage:
    """Returns an image of random, compressible and zero chunks."""
    random = Random(seed)
    stored, digests, zstd, content = [], [], [], bytearray()
    for start in range(0, size_bytes, chunk_bytes):
        length = min(chunk_bytes, size_bytes - start)
        kind = random.choice(["random", "random", "text", "zero"])
        if kind == "zero" and start:
            chunk = bytes(length)
        else:
            chunk = random.randbytes(length) if kind != "text" else (b"%d line\n" % start * length)[:length]
        content += chunk
        if chunk.strip(b"\0"):
            small = zstandard.compress(chunk, 1)
            digests.append(chunk_digest(chunk))
            zstd.append(len(small) < length)
            stored.append(small if zstd[-1] else chunk)
        else:
            digests.append(ZERO_DIGEST)
            zstd.append(False)
            stored.append(b"")
    rows = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
    return StoredImage(bytes(content), Manifest(size_bytes, chunk_bytes, rows), stored, np.array(zstd))


class PassSender:
    """The datagrams of one pass, window by window."""

    def __init__(self, keys: SenderKeys, geometry: Geometry, image: StoredImage, train: int = 16) -> None:
        self.keys = keys
        self.geometry = geometry
        self.image = image
        self._sealer = Sealer(keys, geometry.symbol_bytes, train)
        self._prover = Prover(self._sealer, geometry.symbol_bytes)
        self._train = train
        self.pass_number = 0

    def start_pass(self, chunks: Iterable[int]) -> PassLayout:
        """Begin a pass of these chunks."""
        self.pass_number += 1
        self._sealer.position = 0, 0
        self.layout = PassLayout(self.geometry, np.array(sorted(chunks), np.int64), self.image.sizes)
        stream = b"".join(self.image.stored[chunk] for chunk in sorted(chunks))
        size = self.geometry.symbol_bytes
        stream += bytes(-len(stream) % size)
        self._symbols = [stream[start : start + size] for start in range(0, len(stream), size)]
        self._parity: dict[tuple[int, int], list[bytes]] = {}
        self.rows_sent: dict[tuple[int, int], int] = {}
        self.rounds: dict[int, int] = {}
        return self.layout

    def source(self, window: int, only: Iterable[int] | None = None) -> Iterator[bytes]:
        """Returns the source symbols of a window, or only some."""
        base, shape = window * self.geometry.window_symbols, self.layout.window(window)
        symbols = list(range(shape.symbol_count) if only is None else only)
        yield from self._seal(Kind.SOURCE, window, symbols, [self._symbols[base + s] for s in symbols])

    def parity(self, window: int, deficits: NDArray[np.int32]) -> Iterator[bytes]:
        """Returns fresh parity symbols: as many per codeword as `deficits` says."""
        shape = self.layout.window(window)
        symbols, payloads = [], []
        for codeword, count in enumerate(deficits.tolist()):
            sent = self.rows_sent.get((window, codeword), 0)
            self.rows_sent[window, codeword] = sent + count
            for row in range(sent, sent + count):
                symbols.append(row * shape.codewords + codeword)
                payloads.append(self._parity_of(window, codeword)[row])
        order = np.argsort(symbols, kind="stable").tolist()
        yield from self._seal(Kind.PARITY, window, [symbols[i] for i in order], [payloads[i] for i in order])

    def mark(self, *windows: int, complete_round: bool = True, ended: bool = False) -> bytes:
        """Returns a mark that says these windows completed a round more."""
        for window in windows:
            self.rounds[window] = self.rounds.get(window, 0) + complete_round
        entries = [MarkedWindow(window, self.rounds[window], 0) for window in windows]
        return self._sealer.seal_mark(self.pass_number, pack_mark(Mark(entries, self.layout.window_count, ended)))

    def _parity_of(self, window: int, codeword: int) -> list[bytes]:
        if (window, codeword) not in self._parity:
            base, shape = window * self.geometry.window_symbols, self.layout.window(window)
            rows = [
                self._symbols[base + symbol] if symbol < shape.symbol_count else bytes(self.geometry.symbol_bytes)
                for symbol in range(codeword, shape.rows * shape.codewords, shape.codewords)
            ]
            codec = CODECS[self.geometry.codec]
            self._parity[window, codeword] = codec.encode(rows, self.geometry.parity_symbols)
        return self._parity[window, codeword]

    def _seal(self, kind: Kind, window: int, symbols: list[int], payloads: list[bytes]) -> Iterator[bytes]:
        stride = self.geometry.symbol_bytes + 40
        for start in range(0, len(symbols), self._train):
            part = slice(start, start + self._train)
            train = self._sealer.seal_symbols(
                kind, self.pass_number, window, np.array(symbols[part], np.int64), payloads[part]
            )
            yield from (bytes(train[at : at + stride]) for at in range(0, len(train), stride))
            if kind is Kind.SOURCE:
                self._sealer.position = max(self._sealer.position, (window, symbols[part][-1] + 1))
            numbers = np.array(symbols[part], np.int64)
            yield from self._prover.note(kind, self.pass_number, window, numbers, payloads[part])
        yield from self._prover.flush()


Reporter = Callable[[int, int, NDArray[np.int32]], None]
