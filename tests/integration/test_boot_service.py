"""The boot service against scripted firmware: in the network lab, without a machine."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.boot_process import make_image
from tests.support.lab import Host, NetworkLab

pytestmark = pytest.mark.lab

PC = "52:54:00:98:00:10"


class Segment:
    """A lab with the boot service on one host, and machines on another."""

    def __init__(self, lab: NetworkLab, directory: Path) -> None:
        self.lab = lab
        self.directory = directory
        make_image(directory)
        self.decide({"*": "knock"})
        self.process: subprocess.Popen[bytes] | None = None

    def decide(self, answers: dict[str, str]) -> None:
        (self.directory / "decisions.json").write_text(json.dumps(answers))

    def serve(self, host: Host | None = None) -> subprocess.Popen[bytes]:
        log = self.directory / f"log-{time.monotonic_ns()}"
        log.touch()
        command = [sys.executable, "-m", "tests.support.boot_process", str(self.directory), "eth0"]
        process = self.lab.popen(host or self.lab.sender, command, log=log)
        until = time.monotonic() + 60
        while b"ready" not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.02)
        return process

    def machines(self, *options: str, mac: str = PC, server: str = "10.97.0.1") -> list[dict[str, Any]]:
        command = [sys.executable, "-m", "tests.support.pxe", server, mac, *options]
        ended = self.lab.run(self.lab.receivers[0], command, timeout_seconds=240, check=False)
        assert ended.returncode == 0, ended.stderr
        return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.fixture
def segment(open_lab: Callable[..., NetworkLab], tmp_path: Path) -> Segment:
    return Segment(open_lab(receiver_count=1, sender_count=2), tmp_path)


@pytest.mark.parametrize(("way", "boot_file"), [("pxe", "shimx64.efi"), ("http", "http://10.97.0.1:7480/shimx64.efi")])
def test_a_machine_gets_its_loader_its_menu_and_the_boot_image(segment: Segment, way: str, boot_file: str) -> None:
    segment.serve()
    (machine,) = segment.machines("--way", way)
    assert machine["failure"] == ""
    assert machine["boot_file"] == boot_file
    assert machine["loader_bytes"] == 3_400_000
    assert "fleetcast.token=fct1-abc" in machine["menu"]
    assert machine["image_bytes"] == 8_000_000
    assert machine["connections_reset"], "a loader begins anew from the same port"


def test_thirty_machines_at_once_are_all_served_at_their_first_question(segment: Segment) -> None:
    segment.serve()
    machines = segment.machines("--count", "30")
    assert [machine["failure"] for machine in machines] == [""] * 30
    assert [machine["offers"] for machine in machines] == [1] * 30


def test_machines_get_through_where_datagrams_are_lost(segment: Segment) -> None:
    segment.serve()
    for machine in segment.machines("--count", "4", "--loss", "0.05"):
        assert machine["failure"] == ""
        assert machine["loader_bytes"] == 3_400_000


def test_the_same_port_can_be_used_again_at_once(segment: Segment) -> None:
    """GRUB on UEFI PXE begins each connection after a restart from one port, with one sequence number."""
    segment.serve()
    script = (
        "import asyncio, sys; from tests.support.pxe import http\n"
        "for _ in range(5): print(asyncio.run(http('http://10.97.0.1:7480/grub/grub.cfg', source_port=21550))[0])"
    )
    began = time.monotonic()
    ended = segment.lab.run(segment.lab.receivers[0], [sys.executable, "-c", script])
    assert ended.stdout.split() == ["200"] * 5
    connections = segment.lab.run(segment.lab.sender, ["ss", "-Htan", "sport", "=", ":7480"]).stdout
    assert [line.split()[0] for line in connections.splitlines()] == ["LISTEN"]
    assert time.monotonic() - began < 15


def test_a_machine_with_nothing_due_is_told_its_disk_and_one_left_alone_hears_nothing(segment: Segment) -> None:
    segment.decide({PC: "local disk"})
    segment.serve()
    (machine,) = segment.machines()
    assert "linux (http" not in machine["menu"]
    assert "bootmgfw.efi" in machine["menu"]
    (silent,) = segment.machines("--tries", "2", mac="52:54:00:98:00:77")
    assert silent["failure"] == "no offer"


def test_while_the_scheduler_is_away_nothing_is_installed(segment: Segment) -> None:
    segment.decide({PC: "install"})
    segment.serve()
    assert "linux (http" in segment.machines()[0]["menu"]
    segment.decide({"away": ""})
    until = time.monotonic() + 60
    while "linux (http" in segment.machines()[0]["menu"]:  # as long as the decision is remembered
        assert time.monotonic() < until
    assert segment.machines("--tries", "2", mac="52:54:00:98:00:77")[0]["failure"] == "no offer"


def test_two_boot_services_on_a_segment_serve_a_machine_by_one_of_them(segment: Segment) -> None:
    segment.serve()
    segment.serve(segment.lab.senders[1])
    (machine,) = segment.machines()
    assert machine["failure"] == ""
    assert machine["loader_bytes"] == 3_400_000


def test_a_service_that_is_killed_and_started_again_serves_the_next_question(segment: Segment) -> None:
    process = segment.serve()
    assert segment.machines()[0]["failure"] == ""
    process.kill()
    process.wait()
    segment.serve()
    assert segment.machines()[0]["failure"] == ""


def test_what_is_not_served_is_refused_with_its_code(segment: Segment) -> None:
    segment.serve()
    script = (
        "import asyncio\nfrom tests.support.pxe import http, tftp\n"
        "async def main():\n"
        "    for name in ('../../etc/passwd', 'image.json', 'revocations_sku.efi'):\n"
        "        try: await tftp('10.97.0.1', name, 0)\n"
        "        except OSError as error: print(error)\n"
        "    base = 'http://10.97.0.1:7480'\n"
        "    for path in ('/../../etc/passwd', '/image/../active/image.json', '/machine/x', '/revocations.efi'):\n"
        "        print((await http(base + path))[0])\n"
        "asyncio.run(main())"
    )
    said = segment.lab.run(segment.lab.receivers[0], [sys.executable, "-c", script]).stdout.splitlines()
    assert [line.split(":")[0] for line in said[:3]] == ["error 1"] * 3
    assert said[3:] == ["404"] * 4
