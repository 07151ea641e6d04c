"""A host in the network that injects datagrams into whatever transmission it sees: `python -m tests.support.hostile`.

It has no certificate and no key. It learns sender and group by listening to the wire, and sends in that sender's
name, in turn: random bytes, datagrams that it has heard before, the same with one bit flipped, and well-formed ones
sealed with a key of its own. It prints how many of each, once a second, as an object of JSON.
"""

import argparse
import json
import random
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import replace

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fleetcast_wire.packet import HEADER_BYTES, SEAL_BYTES, datagram_bytes, pack_header, unpack_header

from tests.support.lab import INTERFACE

_ALL_PROTOCOLS, _IPV4 = 3, 0x0800
_DATAGRAM_BYTES = datagram_bytes(1408)
_HEARD_COUNT = 200
_LISTEN_AGAIN_SECONDS = 1.0
_BATCH_SECONDS = 0.01


def main() -> None:
    """Listen and inject until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interface", default=INTERFACE)
    parser.add_argument("--rate", type=int, default=10_000, help="datagrams a second")
    arguments = parser.parse_args()
    inject(arguments.interface, arguments.rate)


def inject(interface: str, datagrams_per_second: int) -> None:
    """Injects at a steady rate, for ever."""
    key = AESGCM(AESGCM.generate_key(256))
    forgeries: dict[str, Callable[[bytes], bytes]] = {
        "random": _noise,
        "replayed": _replay,
        "bit flipped": _flip_bit,
        "another key": lambda heard: _seal(heard, key),
    }
    kinds = list(forgeries)
    injected = dict.fromkeys(kinds, 0)
    sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
    count, begun_at, listen_at = 0, 0.0, 0.0
    headers, group, heard = b"", "", list[bytes]()
    while True:
        now = time.monotonic()
        if now >= listen_at:
            headers, group, heard = _listen(interface)
            listen_at = time.monotonic() + _LISTEN_AGAIN_SECONDS
            print(json.dumps(injected), flush=True)
            begun_at = begun_at or time.monotonic()
        due = int((time.monotonic() - begun_at) * datagrams_per_second)
        count = max(count, due - datagrams_per_second // 10)  # what listening delayed is not made good in one burst
        while count < due:
            kind = kinds[count % len(kinds)]
            forged = forgeries[kind](random.choice(heard))
            sender.sendto(headers + struct.pack(">HH", 8 + len(forged), 0) + forged, (group, 0))
            injected[kind] += 1
            count += 1
        time.sleep(_BATCH_SECONDS)


def _listen(interface: str) -> tuple[bytes, str, list[bytes]]:
    """Returns how datagrams of the first transmission begin, up to the UDP ports; its group; and some that it sent."""
    headers, group, heard = b"", "", list[bytes]()
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL_PROTOCOLS)) as wire:
        wire.bind((interface, _ALL_PROTOCOLS))
        while len(heard) < _HEARD_COUNT:
            packet, (_, protocol, direction, *_) = wire.recvfrom(65536)
            if protocol != _IPV4 or direction == socket.PACKET_OUTGOING or packet[9] != socket.IPPROTO_UDP:
                continue
            if packet[16] & 0xF0 != 0xE0:
                continue
            payload_at = (packet[0] & 0x0F) * 4 + 8
            datagram = packet[payload_at : payload_at + _DATAGRAM_BYTES]  # the network card may have coalesced several
            if len(datagram) >= HEADER_BYTES + SEAL_BYTES:
                # Source and group are those of the transmission; the kernel fills in length, identification, checksum.
                headers = bytes([0x45, 0, 0, 0, 0, 0, 0, 0, 1, socket.IPPROTO_UDP, 0, 0]) + packet[12:20]
                headers += packet[payload_at - 8 : payload_at - 4]
                group = socket.inet_ntoa(packet[16:20])
                heard.append(datagram)
    return headers, group, heard


def _noise(heard: bytes) -> bytes:
    return random.randbytes(len(heard))


def _replay(heard: bytes) -> bytes:
    return heard


def _flip_bit(heard: bytes) -> bytes:
    damaged = bytearray(heard)
    damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
    return bytes(damaged)


def _seal(heard: bytes, key: AESGCM) -> bytes:
    """Returns a datagram for a place further on in the same pass, as its sender would make it but for the key."""
    header = unpack_header(heard)
    further = random.randrange(20_000)
    forged = pack_header(replace(header, symbol=header.symbol + further % 64, counter=header.counter + further))
    return forged + key.encrypt(random.randbytes(12), random.randbytes(len(heard) - HEADER_BYTES - SEAL_BYTES), forged)


if __name__ == "__main__":
    main()
