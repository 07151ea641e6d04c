"""The first start of a server, and the later ones: authority, certificates, the administrator's credential."""

import json
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fleetcast_kit.errors import FailedPreconditionError, InvalidArgumentError
from fleetcast_kit.identity import certificates
from fleetcast_kit.identity.authority import CertificateAuthority
from fleetcast_kit.identity.credentials import Credentials
from fleetcast_kit.identity.peer import Identity, Role
from fleetcast_kit.joining.installation import open_installation
from fleetcast_kit.rpc.channel import open_channel
from fleetcast_kit.rpc.server import GrpcServer
from grpc_health.v1 import health_pb2, health_pb2_grpc


def test_the_first_start_makes_what_is_needed_and_the_second_keeps_it(tmp_path: Path) -> None:
    first = open_installation(tmp_path / "data", listen="localhost:0")
    second = open_installation(tmp_path / "data", listen="localhost:0")
    assert first.authority.fingerprint == second.authority.fingerprint
    assert (first.service, first.sender, first.administrator) == (second.service, second.sender, second.administrator)
    assert first.service.identity == Identity(Role.SERVICE, "services/server")
    assert first.sender.identity == Identity(Role.SENDER, "senders/local")
    assert first.administrator.identity == Identity(Role.ADMINISTRATOR, "administrators/local")
    life = first.authority.certificate.not_valid_after_utc - certificates.now()
    assert timedelta(days=3650) < life < timedelta(days=3653)


def test_secrets_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    installation = open_installation(tmp_path / "data", listen="localhost:0")
    installation.publish_administrator("localhost:7443", tmp_path / "config")
    for root in (tmp_path / "data", tmp_path / "config"):
        assert stat.S_IMODE(root.stat().st_mode) == 0o700
        for file in root.rglob("*.pem"):
            allowed = 0o644 if file.name == "ca.pem" and file.parent.name == "authority" else 0o600
            assert stat.S_IMODE(file.stat().st_mode) == allowed, file


def test_the_administrators_credential_is_put_where_commands_find_it(tmp_path: Path) -> None:
    installation = open_installation(tmp_path / "data", listen="localhost:0")
    installation.publish_administrator("localhost:7443", tmp_path / "config")
    for directory in (tmp_path / "data" / "administrator", tmp_path / "config"):
        assert Credentials.load(directory) == installation.administrator
        assert json.loads((directory / "server.json").read_text()) == {"address": "localhost:7443"}
    installation.publish_administrator("localhost:9999", tmp_path / "config")
    assert json.loads((tmp_path / "config" / "server.json").read_text()) == {"address": "localhost:9999"}


def test_commands_follow_an_authority_that_was_made_anew(tmp_path: Path) -> None:
    first = open_installation(tmp_path / "data", listen="localhost:0")
    first.publish_administrator("localhost:7443", tmp_path / "config")
    shutil.rmtree(tmp_path / "data" / "authority")
    (tmp_path / "data" / "parts.json").write_text('{"parts": []}')
    second = open_installation(tmp_path / "data", listen="localhost:0")
    second.publish_administrator("localhost:7443", tmp_path / "config")
    assert Credentials.load(tmp_path / "config") == second.administrator != first.administrator


def test_the_credential_of_another_server_is_left_alone(tmp_path: Path) -> None:
    one = open_installation(tmp_path / "one", listen="localhost:0")
    two = open_installation(tmp_path / "two", listen="localhost:0")
    one.publish_administrator("one:7443", tmp_path / "config")
    two.publish_administrator("two:7443", tmp_path / "config")
    assert Credentials.load(tmp_path / "config") == one.administrator
    assert json.loads((tmp_path / "config" / "server.json").read_text()) == {"address": "one:7443"}
    (tmp_path / "config" / "cert.pem").write_text("damaged")
    two.publish_administrator("two:7443", tmp_path / "config")
    assert (tmp_path / "config" / "cert.pem").read_text() == "damaged"


def shown_names(directory: Path) -> set[str]:
    """Returns the names in the certificate that the server's port shows."""
    return set(certificates.names_in(Credentials.load(directory / "server").certificate))


def test_the_servers_certificate_follows_its_names(tmp_path: Path) -> None:
    first = open_installation(tmp_path, listen="localhost:0")
    assert {"localhost", "127.0.0.1", "::1"} <= shown_names(tmp_path)
    second = open_installation(tmp_path, listen="localhost:0", advertise=["images.lan", "10.1.2.3"])
    assert {"images.lan", "10.1.2.3"} <= shown_names(tmp_path)
    assert second.administrator == first.administrator
    open_installation(tmp_path, listen="0.0.0.0:0")
    assert "images.lan" not in shown_names(tmp_path)
    with pytest.raises(InvalidArgumentError, match="neither a host name nor an address"):
        open_installation(tmp_path, listen="localhost:0", advertise=["not_a_name!"])


def test_a_certificate_near_its_end_is_issued_anew_at_the_start(tmp_path: Path) -> None:
    first = open_installation(tmp_path, listen="localhost:0")
    near = first.authority.issue_credentials(
        first.service.identity, names=shown_names(tmp_path), lifetime=timedelta(minutes=1)
    )
    near.save(tmp_path / "server")
    open_installation(tmp_path, listen="localhost:0")
    end = Credentials.load(tmp_path / "server").certificate.not_valid_after_utc
    assert end > certificates.now() + timedelta(days=300)


def test_what_dials_inside_a_process_outlives_every_run_of_it(tmp_path: Path) -> None:
    installation = open_installation(tmp_path, listen="localhost:0")
    end = installation.authority.certificate.not_valid_after_utc
    for credentials in (installation.service, installation.sender):
        assert credentials.certificate.not_valid_after_utc == end
    short = installation.authority.issue_credentials(installation.sender.identity, lifetime=timedelta(days=365))
    short.save(tmp_path / "senders" / "local")
    again = open_installation(tmp_path, listen="localhost:0")
    assert again.sender.certificate.not_valid_after_utc == end, "one of an earlier version is made anew"


def authority_with_life(directory: Path, begin: timedelta, end: timedelta) -> ec.EllipticCurvePrivateKey:
    """Makes an authority that is valid from `begin` to `end` from now on, and returns its key."""
    key = certificates.generate_key()
    now = certificates.now()
    root = certificates.self_signed(key, "fleetcast authority test", not_before=now + begin, not_after=now + end)
    directory.mkdir(parents=True)
    (directory / "key.pem").write_bytes(certificates.private_key_pem(key))
    (directory / "ca.pem").write_bytes(certificates.certificate_pem(root))
    return key


@pytest.mark.parametrize(
    ("begin", "end"), [(timedelta(days=3000), timedelta(days=6000)), (timedelta(days=-6000), timedelta(days=-3000))]
)
def test_an_authority_made_by_a_clock_years_off_is_refused_with_the_way_out(
    tmp_path: Path, begin: timedelta, end: timedelta
) -> None:
    authority_with_life(tmp_path / "authority", begin, end)
    with pytest.raises(FailedPreconditionError, match=r"clock says .* set the clock.*remove .*authority") as e:
        open_installation(tmp_path, listen="localhost:0")
    assert e.value.reason == "CLOCK_WRONG"


def test_a_certificate_of_a_time_when_the_clock_was_ahead_is_made_anew(tmp_path: Path) -> None:
    key = authority_with_life(tmp_path / "authority", timedelta(days=-1), timedelta(days=3000))
    first = open_installation(tmp_path, listen="localhost:0")
    ahead = certificates.leaf(
        Credentials.load(tmp_path / "server").private_key.public_key(),
        first.service.identity.name,
        issuer_key=key,
        issuer_common_name="fleetcast authority test",
        not_before=certificates.now() + timedelta(days=365),
        not_after=certificates.now() + timedelta(days=730),
        uri=first.service.identity.uri,
        names=shown_names(tmp_path),
    )
    (tmp_path / "server" / "cert.pem").write_bytes(certificates.certificate_pem(ahead))
    open_installation(tmp_path, listen="localhost:0")
    assert Credentials.load(tmp_path / "server").certificate.not_valid_before_utc <= certificates.now()


@pytest.mark.parametrize("name", ["key.pem", "cert.pem", "ca.pem"])
@pytest.mark.parametrize("content", [b"", b"damaged", None])
def test_a_damaged_identity_is_made_anew(tmp_path: Path, name: str, content: bytes | None) -> None:
    first = open_installation(tmp_path, listen="localhost:0")
    file = tmp_path / "server" / name
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    second = open_installation(tmp_path, listen="localhost:0")
    assert second.authority.fingerprint == first.authority.fingerprint
    assert second.service.identity == first.service.identity


def damage(name: str) -> Callable[[Path], object]:
    return lambda directory: (directory / name).write_bytes(b"damaged")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda directory: (directory / "key.pem").unlink(), "has lost its key key.pem: restore it from a backup"),
        (damage("key.pem"), "cannot be read"),
        (damage("ca.pem"), "cannot be read"),
        (
            lambda directory: (directory / "key.pem").write_bytes(
                certificates.private_key_pem(certificates.generate_key())
            ),
            "do not belong together",
        ),
    ],
)
def test_a_damaged_authority_is_never_replaced(tmp_path: Path, harm: Callable[[Path], object], message: str) -> None:
    open_installation(tmp_path, listen="localhost:0")
    before = (tmp_path / "authority" / "ca.pem").read_bytes()
    harm(tmp_path / "authority")
    with pytest.raises(FailedPreconditionError, match=message):
        open_installation(tmp_path, listen="localhost:0")
    assert (tmp_path / "authority" / "ca.pem").read_bytes() in (before, b"damaged")


def test_a_data_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FailedPreconditionError, match=r"the data directory .*file/data cannot be used: File exists"):
        open_installation(tmp_path / "file" / "data", listen="localhost:0")


KILLED_AT_EACH_FILE = """
import os, signal, sys
from pathlib import Path
from fleetcast_kit.joining.installation import open_installation

def start(directory):
    return open_installation(directory, listen="localhost:0")

replace = os.replace
for number in range(1, 100):
    directory = Path(sys.argv[1]) / str(number)
    child = os.fork()
    if not child:
        count = 0
        def replace_or_die(source, target):
            global count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)
        os.replace = replace_or_die
        start(directory)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    first, second = start(directory), start(directory)
    assert (first.service, first.sender, first.administrator) == (second.service, second.sender, second.administrator)
    assert first.service.authority_pem == first.authority.certificate_pem
    if status == 0:
        print(number - 1)
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
"""


def test_a_start_killed_before_any_file_is_completed_by_the_next(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED_AT_EACH_FILE, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) == 15  # two of the authority, the list of parts, three for each identity


def test_two_first_starts_at_once_share_one_authority(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from fleetcast_kit.identity.authority import CertificateAuthority;"
        "print(CertificateAuthority.open(Path(sys.argv[1])).fingerprint.hex())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "authority")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    fingerprints = {process.communicate()[0] for process in processes}
    assert fingerprints == {CertificateAuthority.open(tmp_path / "authority").fingerprint.hex() + "\n"}


async def test_the_identities_of_an_installation_reach_its_server(tmp_path: Path) -> None:
    installation = open_installation(tmp_path, listen="localhost:0")
    server = GrpcServer("localhost:0", installation.server, [])
    await server.start()
    for credentials in (installation.service, installation.sender, installation.administrator):
        async with open_channel(f"localhost:{server.port}", credentials) as channel:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    await server.stop(0)
