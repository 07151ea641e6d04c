import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import namespaces
from tests.support.lab import INTERFACE, PREFIX, NetworkLab
from tests.support.loss import Loss
from tests.support.lossy import Bursts
from tests.support.namespaces import LabError

pytestmark = pytest.mark.lab

SEND = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(sys.argv[1]))
s.connect(("239.192.1.1", 5000))
if sys.argv[3] == "gso":
    s.setsockopt(17, 103, 1400)
    for _ in range(int(sys.argv[2]) // 40):
        s.send(bytes(1400 * 40))
else:
    for _ in range(int(sys.argv[2])):
        s.send(bytes(1400))
"""
RECEIVE = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(1, 33, 32 << 20)
s.setsockopt(17, 104, 1)
s.bind(("239.192.1.1", 5000))
membership = socket.inet_aton("239.192.1.1") + socket.inet_aton(sys.argv[1])
s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
print("ready", flush=True)
s.settimeout(5)
total = largest = 0
try:
    while True:
        got = len(s.recv(65536))
        s.settimeout(0.5)
        total += got
        largest = max(largest, got)
except TimeoutError:
    print(total // 1400, largest, flush=True)
"""

REACH = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 9), timeout=float(sys.argv[2]))
except ConnectionRefusedError:
    print("reached")
except OSError as error:
    print(error)
"""


def reaches(lab: NetworkLab, address: str, seconds: float) -> bool:
    """Returns whether a host answers the sender: its refusal is an answer."""
    argv = [sys.executable, "-c", REACH, address, str(seconds)]
    return lab.run(lab.sender, argv).stdout == "reached\n"


def multicast(lab: NetworkLab, count: int, mode: str = "gso") -> list[tuple[int, int]]:
    """Returns the datagrams each receiver got, and the largest number of bytes that one call returned."""
    receivers = [
        subprocess.Popen(
            lab.command(host, [sys.executable, "-c", RECEIVE, host.address]), stdout=subprocess.PIPE, text=True
        )
        for host in lab.receivers
    ]
    try:
        for process in receivers:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        lab.run(lab.sender, [sys.executable, "-c", SEND, lab.sender.address, str(count), mode])
        outputs = [process.communicate(timeout=20)[0].split() for process in receivers]
    finally:
        for process in receivers:
            process.kill()
            process.wait()
    return [(int(total), int(largest)) for total, largest in outputs]


def test_a_group_reaches_every_receiver_and_arrives_coalesced(open_lab: Callable[..., NetworkLab]) -> None:
    lab = open_lab(receiver_count=2)
    results = multicast(lab, 4000)
    assert [total for total, _ in results] == [4000, 4000]
    assert all(largest > 1400 for _, largest in results)


def test_a_switch_that_coalesces_loses_nothing(open_lab: Callable[..., NetworkLab]) -> None:
    lab = open_lab(receiver_count=2, coalescing="switch")
    assert all(total == 4000 and largest > 1400 for total, largest in multicast(lab, 4000))
    frames = 4000 * (1400 + 8 + 20 + 14)
    assert frames <= lab.sent_bytes(lab.sender) < frames * 1.01
    with pytest.raises(LabError):
        lab.set_loss(lab.receivers[0], Loss(fraction=0.1))


def test_packets_have_wire_size_between_the_hosts(open_lab: Callable[..., NetworkLab]) -> None:
    lab = open_lab(receiver_count=1)
    before = lab.sent_bytes(lab.sender)
    multicast(lab, 4000)
    frames = 4000 * (1400 + 8 + 20 + 14)
    assert frames <= lab.sent_bytes(lab.sender) - before < frames * 1.01
    assert lab.received_bytes(lab.receivers[0]) >= 4000 * 1400  # headers of coalesced packets count once


def test_each_receiver_loses_its_own_share(open_lab: Callable[..., NetworkLab]) -> None:
    lab = open_lab(receiver_count=3)
    lab.set_loss(lab.receivers[0], Loss(fraction=0.1))
    lab.set_loss(lab.receivers[1], Loss(bursts=Bursts(fraction=0.05, mean_length=20), seed=4))
    results = [total for total, _ in multicast(lab, 20_000)]
    lost = [lab.lost_packet_count(host) for host in lab.receivers]
    assert results == [20_000 - count for count in lost]
    assert 1700 < lost[0] < 2300
    assert 500 < lost[1] < 1600
    assert lost[2] == 0


def test_loss_spares_tcp_unless_asked_for(open_lab: Callable[..., NetworkLab]) -> None:
    lab = open_lab(receiver_count=1)
    receiver = lab.receivers[0]
    lab.set_loss(receiver, Loss(fraction=1.0))
    assert reaches(lab, receiver.address, 3)
    assert multicast(lab, 40) == [(0, 0)]
    lab.set_loss(receiver, None)
    assert lab.lost_packet_count(receiver) == 0
    assert multicast(lab, 40)[0][0] == 40


def test_a_rate_holds(open_lab: Callable[..., NetworkLab]) -> None:
    lab = open_lab(receiver_count=1, rate_bits_per_second=200_000_000)
    start = time.monotonic()
    assert multicast(lab, 8000)[0][0] == 8000
    assert time.monotonic() - start > 8000 * 1442 * 8 / 200e6 * 0.9
    lab.set_rate(lab.sender, None)


def test_a_snooping_switch_passes_groups_on_to_members(open_lab: Callable[..., NetworkLab]) -> None:
    lab = open_lab(receiver_count=2, snooping=True)
    assert [total for total, _ in multicast(lab, 400)] == [400, 400]


def test_a_cable_can_be_taken_out_and_put_in(lab: NetworkLab) -> None:
    receiver = lab.receivers[0]
    assert reaches(lab, receiver.address, 3)
    lab.unplug(receiver)
    assert not reaches(lab, receiver.address, 0.5)
    lab.plug(receiver)
    assert reaches(lab, receiver.address, 5)


def test_hosts_have_ipv6_and_the_mtu_asked_for(open_lab: Callable[..., NetworkLab]) -> None:
    lab = open_lab(receiver_count=1, sender_count=2, hostile_host=True, mtu_bytes=9000)
    assert len(lab.hosts) == 4
    assert reaches(lab, lab.receivers[0].address6, 3)
    assert "mtu 9000" in lab.run(lab.sender, ["ip", "link", "show", INTERFACE]).stdout


def test_nothing_is_left_when_a_lab_closes() -> None:
    with NetworkLab(receiver_count=1) as lab:
        process = lab.popen(lab.sender, ["sleep", "600"])
        made = {host.namespace for host in lab.hosts}
    assert process.returncode is not None
    assert not made & set(namespaces.names())


def test_the_next_lab_removes_what_a_killed_run_left() -> None:
    script = (
        "from tests.support.lab import NetworkLab\n"
        "lab = NetworkLab(receiver_count=1).__enter__()\n"
        "process = lab.popen(lab.sender, ['sleep', '600'])\n"
        "print(process.pid, lab.sender.namespace, flush=True)\n"
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False).stdout
    pid, namespace = output.split()
    assert namespace in namespaces.names()
    namespaces.remove_abandoned(PREFIX)
    assert namespace not in namespaces.names()
    status = Path("/proc", pid, "stat")
    assert not status.exists() or status.read_text().split()[2] in "ZX"
