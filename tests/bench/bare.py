"""The bare kernel path: the same socket options and buffers, no protocol. What the machine can do at most.

`python -m tests.bench.bare receive ADDRESS` and `... send ADDRESS SIZE_BYTES RATE` are run on the lab's hosts.
"""

import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from tests.bench.measurement import Measurement
from tests.bench.process import BenchError, Watched
from tests.support.lab import NetworkLab

DATAGRAM_BYTES = 24 + 1408 + 16
SEGMENT_COUNT = 44
BATCH_BYTES = DATAGRAM_BYTES * SEGMENT_COUNT

_GROUP = ("239.192.7.7", 7400)
_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
_SO_RCVBUFFORCE = 33
_END = b"end"


def run_bare(lab: NetworkLab, source: Path, folder: Path) -> Measurement:
    """Send as many bytes as the file has, nobody looking at them.

    Raises:
        BenchError: a program failed or hung.
    """
    size_bytes = source.stat().st_size
    python = [sys.executable, "-m", "tests.bench.bare"]
    with ExitStack() as stack:
        receivers = [
            stack.enter_context(Watched(lab, host, [*python, "receive", host.address], folder / f"{host.name}.log"))
            for host in lab.receivers
        ]
        for receiver in receivers:
            receiver.wait_for_line("ready", 20)
        sent_before = lab.sent_bytes(lab.sender)
        argv = [*python, "send", lab.sender.address, str(size_bytes)]
        sender = stack.enter_context(Watched(lab, lab.sender, argv, folder / "sender.log"))
        for program in (sender, *receivers):
            program.wait(60)
    received = [int(receiver.wait_for_line("received", 0).text.split()[1]) for receiver in receivers]
    seconds = max(float(receiver.wait_for_line("received", 0).text.split()[2]) for receiver in receivers)
    if not all(received):
        raise BenchError(f"the bare path brought nothing: see {folder}")
    return Measurement(
        tool="bare",
        size_bytes=size_bytes,
        seconds=seconds,
        wall_seconds=max(program.meter.ended_at for program in (sender, *receivers)) - sender.started_at,
        sender_cpu_seconds=sender.meter.cpu_seconds,
        receiver_cpu_seconds=[receiver.meter.cpu_seconds for receiver in receivers],
        receiver_peak_memory_bytes=[receiver.meter.peak_memory_bytes for receiver in receivers],
        wire_bytes=lab.sent_bytes(lab.sender) - sent_before,
        extra={"lost_share": 1 - min(received) / size_bytes},
    )


def _send(address: str, size_bytes: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
        sender.connect(_GROUP)
        sender.setsockopt(_SOL_UDP, _UDP_SEGMENT, DATAGRAM_BYTES)
        batch = bytes(BATCH_BYTES)
        whole, rest = divmod(size_bytes, BATCH_BYTES)
        for _ in range(whole):
            sender.send(batch)
        if rest:
            sender.send(batch[:rest])
        for _ in range(10):
            time.sleep(0.02)
            sender.send(_END)


def _receive(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
        receiver.setsockopt(_SOL_UDP, _UDP_GRO, 1)
        receiver.bind(_GROUP)
        membership = socket.inet_aton(_GROUP[0]) + socket.inet_aton(address)
        receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        print("ready", flush=True)
        buffer = bytearray(65536)
        total_bytes = receiver.recv_into(buffer)
        first_at = last_at = time.monotonic()
        while (count := receiver.recv_into(buffer)) != len(_END):
            total_bytes += count
            last_at = time.monotonic()
        print(f"received {total_bytes} {last_at - first_at:.6f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "send":
        _send(sys.argv[2], int(sys.argv[3]))
    else:
        _receive(sys.argv[2])
