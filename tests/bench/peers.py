"""udpcast and UFTP in the network lab, each with the settings that were fastest here."""

import filecmp
import re
import shutil
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tests.bench.measurement import Measurement
from tests.bench.process import BenchError, Watched, poll
from tests.support.lab import INTERFACE, NetworkLab

_START_SECONDS = 10
_UFTP_GROUP = "010404E6"  # 230.4.4.1, as /proc/net/igmp writes it


def timeout_seconds(size_bytes: int) -> float:
    """Returns how long a transfer may take: that of 20 Mbit/s, and a minute."""
    return 60 + size_bytes * 8 / 20e6


def run_udpcast(lab: NetworkLab, source: Path, folder: Path) -> Measurement:
    """Send a file with udp-sender to a udp-receiver on each receiver.

    Its fixed pauses, 2 s before the transfer and 0.5 s after it, count in `wall_seconds` alone.

    Raises:
        BenchError: a program failed or hung, or a copy differs.
    """
    size_bytes = source.stat().st_size
    outputs = [folder / f"{host.name}.out" for host in lab.receivers]
    options: list[str | Path] = ["--nokbd", "--no-progress", "--interface", INTERFACE]
    with ExitStack() as stack:
        receivers = [
            stack.enter_context(
                Watched(lab, host, ["udp-receiver", *options, "--file", output], folder / f"{host.name}.log")
            )
            for host, output in zip(lab.receivers, outputs, strict=True)
        ]
        for receiver in receivers:
            receiver.wait_for_line("UDP receiver for", _START_SECONDS)
        sent_before = lab.sent_bytes(lab.sender)
        argv = ["udp-sender", *options, "--file", source, "--min-receivers", str(len(receivers))]
        sender = stack.enter_context(Watched(lab, lab.sender, argv, folder / "sender.log"))
        for program in (sender, *receivers):
            program.wait(timeout_seconds(size_bytes))
        start = sender.wait_for_line("Starting transfer", 0)
        end = sender.wait_for_line("Transfer complete", 0)
    return _measurement(
        "udpcast",
        lab,
        source,
        outputs=outputs,
        sender=sender,
        receivers=receivers,
        seconds=end.at - start.at,
        sent_before=sent_before,
    )


def run_uftp(lab: NetworkLab, source: Path, folder: Path) -> Measurement:
    """Send a file with uftp to a uftpd on each receiver.

    As fast as the interface takes it, full packets, short round-trip estimates: the defaults set up for 3 s and more.

    Raises:
        BenchError: a program failed or hung, or a copy differs.
    """
    size_bytes = source.stat().st_size
    folders = [folder / host.name for host in lab.receivers]
    buffer: list[str | Path] = ["-I", INTERFACE, "-B", str(4 << 20)]
    with ExitStack() as stack:
        receivers = []
        for number, (host, target) in enumerate(zip(lab.receivers, folders, strict=True), 1):
            target.mkdir()
            argv = ["uftpd", "-d", *buffer, "-U", f"0x{number:08X}", "-D", target]
            receivers.append(stack.enter_context(Watched(lab, host, argv, folder / f"{host.name}.log")))
        for receiver in receivers:
            poll(partial(_has_joined, receiver.meter.pid), _START_SECONDS, f"the joining of {receiver.name}")
        sent_before = lab.sent_bytes(lab.sender)
        argv = ["uftp", *buffer, "-R", "-1", "-r", "0.05:0.01:0.5", "-b", "1440", "-Y", "none", source]
        sender = stack.enter_context(Watched(lab, lab.sender, argv, folder / "sender.log"))
        sender.wait(timeout_seconds(size_bytes))
        for receiver in receivers:
            receiver.stop()
        elapsed = re.search(r"Total elapsed time: ([\d.]+) seconds", sender.text)
        if elapsed is None:
            raise BenchError(f"{sender.name} did not say how long it took: see {sender.log}")
    outputs = [target / source.name for target in folders]
    return _measurement(
        "uftp",
        lab,
        source,
        outputs=outputs,
        sender=sender,
        receivers=receivers,
        seconds=float(elapsed[1]),
        sent_before=sent_before,
    )


def _measurement(
    tool: str,
    lab: NetworkLab,
    source: Path,
    *,
    outputs: list[Path],
    sender: Watched,
    receivers: list[Watched],
    seconds: float,
    sent_before: int,
) -> Measurement:
    check_copies(tool, source, outputs)
    return Measurement(
        tool=tool,
        size_bytes=source.stat().st_size,
        seconds=seconds,
        wall_seconds=max(program.meter.ended_at for program in (sender, *receivers)) - sender.started_at,
        sender_cpu_seconds=sender.meter.cpu_seconds,
        receiver_cpu_seconds=[receiver.meter.cpu_seconds for receiver in receivers],
        receiver_peak_memory_bytes=[receiver.meter.peak_memory_bytes for receiver in receivers],
        wire_bytes=lab.sent_bytes(lab.sender) - sent_before,
    )


def _has_joined(pid: int) -> bool:
    return _UFTP_GROUP in Path(f"/proc/{pid}/net/igmp").read_text()


def check_copies(tool: str, source: Path, outputs: list[Path]) -> None:
    """Compare every output with the source, byte for byte.

    Raises:
        BenchError: one is missing or differs.
    """
    for output in outputs:
        if not output.exists() or not filecmp.cmp(source, output, shallow=False):
            raise BenchError(f"{tool} left a wrong copy: {output}")


def installed_peers() -> list[str]:
    """Returns the names of the peers that are installed."""
    tools = {"udpcast": ("udp-sender", "udp-receiver"), "uftp": ("uftp", "uftpd")}
    return [name for name, programs in tools.items() if all(shutil.which(program) for program in programs)]
