"""Machines that start from the network, as their firmware and boot loaders do it, without the machine.

`python -m tests.support.pxe SERVER MAC [--way http] [--count N] [--loss 0.05]` runs some at once where it stands, and
prints a line of JSON for each: what it was offered, fetched and told.
"""

import argparse
import asyncio
import json
import random
import socket
import struct
import time
from dataclasses import asdict, dataclass, field
from typing import Any, cast

DISCOVER_SECONDS = (1.0, 2.0, 4.0, 8.0)
"""How long firmware waits for an offer before it asks again (PXE 2.1, section 2.2.2, shortened)."""


@dataclass
class Started:
    """How far one machine got."""

    mac_address: str
    offers: int = 0
    """How often it had to ask for an offer; 0 if none came."""
    boot_file: str = ""
    loader_bytes: int = 0
    tftp_seconds: float = 0.0
    menu: str = ""
    image_bytes: int = 0
    connections_reset: bool = True
    """Whether each connection of HTTP ended by a reset."""
    seconds: float = 0.0
    failure: str = ""
    retries: dict[str, int] = field(default_factory=dict)


class _Mailbox(asyncio.DatagramProtocol):
    """Takes datagrams, and loses some."""

    def __init__(self, loss: float) -> None:
        self._loss = loss
        self.queue: asyncio.Queue[tuple[bytes, tuple[str, int]]] = asyncio.Queue()
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if random.random() >= self._loss:
            self.queue.put_nowait((data, addr))

    def send(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self.transport is not None
        if random.random() >= self._loss:
            self.transport.sendto(data, addr)


class Firmware:
    """Asks on one interface for offers, in the name of many machines."""

    def __init__(self, way: str, loss: float, tries: int = len(DISCOVER_SECONDS)) -> None:
        self.way = way
        self.loss = loss
        self.tries = tries
        self._waiting: dict[int, asyncio.Future[dict[int, bytes]]] = {}
        self._socket: _Mailbox = _Mailbox(0)

    async def open(self) -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0\0")
        sock.bind(("", 68))
        sock.setblocking(False)
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self._socket, sock=sock)
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while True:
            data, _ = await self._socket.queue.get()
            transaction = int.from_bytes(data[4:8])
            options = _options(data)
            future = self._waiting.get(transaction)
            # A DHCP server's own offer has an address and no file; firmware takes the file of another offer.
            if future is not None and not future.done() and 67 in options:
                future.set_result(options)

    async def offer(self, mac: bytes, started: Started) -> dict[int, bytes] | None:
        """Returns the options of the first offer of something to start."""
        architecture = 16 if self.way == "http" else 7
        vendor_class = f"{'HTTPClient' if self.way == 'http' else 'PXEClient'}:Arch:{architecture:05}:UNDI:003000"
        transaction = random.getrandbits(32)
        options = (
            b"\x35\x01\x01\x39\x02\x05\xc0\x5d\x02" + struct.pack("!H", architecture) + b"\x5e\x03\x01\x03\x00"
            b"\x61\x11\x00" + mac.rjust(16, b"\x11") + bytes([60, len(vendor_class)]) + vendor_class.encode() + b"\xff"
        )
        head = struct.pack("!BBBBIHH16x16s192x", 1, 1, 6, 0, transaction, 0, 0x8000, mac)
        future = self._waiting[transaction] = asyncio.get_running_loop().create_future()
        try:
            for wait in DISCOVER_SECONDS[: self.tries]:
                started.offers += 1
                self._socket.send(head + b"\x63\x82\x53\x63" + options, ("255.255.255.255", 67))
                try:
                    return await asyncio.wait_for(asyncio.shield(future), wait)
                except TimeoutError:
                    continue
            return None
        finally:
            del self._waiting[transaction]


def _options(data: bytes) -> dict[int, bytes]:
    options: dict[int, bytes] = {}
    position = 240
    while position < len(data) and data[position] != 255:
        if data[position] == 0:
            position += 1
            continue
        length = data[position + 1]
        options[data[position]] = options.get(data[position], b"") + data[position + 2 : position + 2 + length]
        position += 2 + length
    return options


async def tftp(server: str, path: str, loss: float, block_bytes: int = 1468, window: int = 4) -> bytes:
    """Returns a file, fetched as firmware does.

    Raises:
        OSError: the server refuses it or falls silent.
    """
    box = _Mailbox(loss)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(("", 0))
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: box, sock=sock)
    try:
        words = [path, "octet", "tsize", "0", "blksize", str(block_bytes), "windowsize", str(window)]
        request = b"\0\1" + b"".join(word.encode() + b"\0" for word in words)
        content, block, in_window, peer, last_sent = b"", 0, 0, (server, 69), request
        box.send(request, peer)
        size = 512
        for _ in range(200_000):
            try:
                data, peer = await asyncio.wait_for(box.queue.get(), 1.0)
            except TimeoutError:
                box.send(last_sent, peer)
                continue
            operation, number = struct.unpack("!HH", data[:4])
            if operation == 5:
                raise OSError(f"error {number}: {data[4:-1].decode()}")
            if operation == 6:
                names = data[2:-1].split(b"\0")
                taken = dict(zip(names[::2], map(int, names[1::2]), strict=True))
                size, window = taken.get(b"blksize", 512), taken.get(b"windowsize", 1)
                number = 0
            elif number == (block + 1) & 0xFFFF:
                block, in_window = block + 1, in_window + 1
                content += data[4:]
                if in_window < window and len(data) == size + 4:
                    continue
            last_sent = struct.pack("!HH", 4, block & 0xFFFF)
            in_window = 0
            box.send(last_sent, peer)
            if operation == 3 and number == block & 0xFFFF and len(data) < size + 4:
                return content
        raise OSError("no end")
    finally:
        transport.close()


async def http(url: str, method: str = "GET", source_port: int = 0) -> tuple[int, bytes, bool]:
    """Returns status and content of a URL, and whether the connection ended by a reset."""
    host, _, path = url.removeprefix("http://").partition("/")
    name, _, port = host.partition(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("", source_port))
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (name, int(port)))
    reader, writer = await asyncio.open_connection(sock=sock)
    writer.write(f"{method} /{path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    received, reset = b"", False
    try:
        while data := await reader.read(1 << 18):
            received += data
    except ConnectionResetError:
        reset = True
    writer.close()
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), body, reset


async def start(firmware: Firmware, server: str, mac: bytes, *, fetch_image: bool = True) -> Started:
    """Returns how far a machine gets: offer, loader, first menu, its own menu, kernel and first stage."""
    started = Started(":".join(f"{byte:02x}" for byte in mac))
    began = time.monotonic()
    offer = await firmware.offer(mac, started)
    if offer is None:
        started.offers, started.failure = 0, "no offer"
        return started
    started.boot_file = offer[67].decode()
    try:
        await _load(firmware, server, started, fetch_image)
    except OSError as error:
        started.failure = f"{type(error).__name__}: {error}"
    started.seconds = time.monotonic() - began
    return started


async def _load(firmware: Firmware, server: str, started: Started, fetch_image: bool) -> None:
    def note(answer: tuple[int, bytes, bool]) -> bytes:
        if answer[0] != 200:
            raise OSError(f"HTTP status {answer[0]}")
        started.connections_reset = started.connections_reset and answer[2]
        return answer[1]

    began = time.monotonic()
    if firmware.way == "http":
        base = started.boot_file.rpartition("/")[0]
        note(await http(started.boot_file, "HEAD"))
        loaders = [
            note(await http(f"{base}/{name}")) for name in (started.boot_file.rpartition("/")[2], "/grubx64.efi")
        ]
        first = note(await http(f"{base}/grub/grub.cfg"))
    else:
        loaders = [await tftp(server, name, firmware.loss) for name in (started.boot_file, "//grubx64.efi")]
        first = await tftp(server, "/grub/grub.cfg", firmware.loss)
    started.loader_bytes, started.tftp_seconds = sum(map(len, loaders)), time.monotonic() - began
    (place,) = [line.split('"')[1] for line in first.decode().splitlines() if line.startswith("configfile")]
    url = "http://" + place.removeprefix("(http,").replace(")", "", 1)
    for name, value in (
        ("net_default_mac", started.mac_address.replace(":", "%3A")),
        ("grub_platform", "efi"),
        ("grub_cpu", "x86_64"),
        ("uuid", "0a0b0c0d-0000-4000-8000-000000000010"),
    ):
        url = url.replace("${" + name + "}", value)
    note(await http(url, "HEAD"))
    started.menu = note(await http(url)).decode()
    for line in started.menu.splitlines():
        if fetch_image and line.startswith(("linux ", "initrd ")):
            place = line.split()[1]
            started.image_bytes += len(note(await http("http://" + place.removeprefix("(http,").replace(")", "", 1))))


async def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("server")
    parser.add_argument("mac")
    parser.add_argument("--way", default="pxe")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--loss", type=float, default=0.0)
    parser.add_argument("--tries", type=int, default=len(DISCOVER_SECONDS))
    given = parser.parse_args()
    firmware = Firmware(given.way, given.loss, given.tries)
    await firmware.open()
    first = int(given.mac.replace(":", ""), 16)
    machines = [start(firmware, given.server, (first + n).to_bytes(6)) for n in range(given.count)]
    results: list[Any] = await asyncio.gather(*machines)
    for result in results:
        print(json.dumps(asdict(result)))


if __name__ == "__main__":
    asyncio.run(_main())
