import json
import os
import signal
import socket
import sqlite3
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support.installation import Installation

pytestmark = pytest.mark.e2e


def refusal(installation: Installation, *flags: str, listen: str | None = None) -> str:
    """Returns the one line with which the server refuses to start."""
    installation.listen = listen or installation.listen
    ended = subprocess.run(
        installation.server_command(*flags),
        env=installation.environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode not in (0, 1), ended.stderr
    assert ended.stdout == ""
    lines = [line for line in ended.stderr.splitlines() if line.startswith("fleetcast-server: ")]
    assert "Traceback" not in ended.stderr
    assert len(lines) == 1, ended.stderr
    return lines[0].removeprefix("fleetcast-server: ")


def test_the_first_start_says_where_it_is_whom_to_trust_and_where_the_credential_lies(
    stopped_installation: Installation,
) -> None:
    stopped_installation.start_server()
    administrator = stopped_installation.data_directory / "administrator"
    ready = (stopped_installation.directory / "server-1.out").read_text()
    assert ready.count("\n") == 1
    assert stopped_installation.address in ready
    assert str(administrator) in ready
    assert "SHA-256" in ready
    for file in administrator.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    home = Path(stopped_installation.environment["HOME"])
    assert json.loads((home / ".config/fleetcast/server.json").read_text())["address"] == stopped_installation.address
    environment = {
        name: value for name, value in stopped_installation.environment.items() if not name.startswith("FLEETCAST_")
    }
    stopped_installation.environment = environment
    assert stopped_installation.run("image", "list").returncode == 0, "the command finds server and credential at home"


def test_sigterm_ends_it_at_once_and_a_restart_knows_everything(installation: Installation) -> None:
    created = installation.fleetcast("enrolment-token", "create", "--uses", "7")
    installation.stop_server()
    installation.start_server()
    tokens = installation.fleetcast("enrolment-token", "list")["enrolment_tokens"]
    assert [token["name"] for token in tokens] == [created["enrolment_token"]["name"]]
    installation.kill_server()
    installation.start_server()
    assert installation.fleetcast("enrolment-token", "list")["enrolment_tokens"] == tokens


def test_a_port_in_use_is_one_line(stopped_installation: Installation) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        line = refusal(stopped_installation, listen=f"127.0.0.1:{port}")
    assert f"port {port} is in use" in line
    assert "--listen" in line


def test_two_servers_on_one_data_directory_are_refused(installation: Installation) -> None:
    line = refusal(installation, listen="127.0.0.1:0")
    assert f"uses the data directory {installation.data_directory}" in line
    installation.fleetcast("image", "list")


def test_a_data_directory_of_a_newer_version_is_refused(stopped_installation: Installation) -> None:
    stopped_installation.start_server()
    stopped_installation.stop_server()
    layout = stopped_installation.data_directory / "layout.json"
    now = layout.read_text()
    layout.write_text('{"layout": 99}')
    assert "newer version of fleetcast" in refusal(stopped_installation)
    layout.write_text(now)
    with sqlite3.connect(stopped_installation.data_directory / "scheduler.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'from the future'")
    assert "newer version of fleetcast" in refusal(stopped_installation)


def test_an_interface_that_does_not_exist_or_takes_no_multicast_is_one_line(
    stopped_installation: Installation,
) -> None:
    line = refusal(stopped_installation, "--multicast-interface", "nonesuch0")
    assert "'nonesuch0'" in line
    assert "there are" in line
    line = refusal(stopped_installation, "--multicast-interface", "192.0.2.77")
    assert "'192.0.2.77'" in line


@pytest.mark.lab
def test_an_interface_without_multicast_is_one_line(stopped_installation: Installation) -> None:
    name = f"fcd{os.getpid() % 100_000}"
    subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p"], check=True)
    try:
        subprocess.run(["ip", "link", "set", name, "multicast", "off", "up"], check=True)
        assert f"interface {name} takes no multicast" in refusal(stopped_installation, "--multicast-interface", name)
    finally:
        subprocess.run(["ip", "link", "delete", name], check=True)


@pytest.mark.parametrize("listen", ["nonsense:x", "192.0.2.77:0", "127.0.0.1:99999"])
def test_an_address_that_cannot_be_listened_on_is_one_line(stopped_installation: Installation, listen: str) -> None:
    assert listen.rpartition(":")[0] in refusal(stopped_installation, listen=listen)


def test_a_data_directory_that_cannot_be_made_is_one_line(stopped_installation: Installation) -> None:
    stopped_installation.data_directory = stopped_installation.directory / "fleetcast.toml" / "data"
    line = refusal(stopped_installation)
    assert str(stopped_installation.data_directory) in line
    assert "--data-dir" in line


def test_ctrl_c_ends_it_too(stopped_installation: Installation) -> None:
    server = stopped_installation.start_server()
    server.send_signal(signal.SIGINT)
    assert server.wait(20) == 0
