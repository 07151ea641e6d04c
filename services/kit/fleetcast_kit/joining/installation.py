"""What the first start of a server makes in its data directory, and every later start keeps in order.

authority/      the authority: its key never leaves this directory
server/         the server's own certificate, for every name it is reached by
services/server/  the identity by which the services of this process dial each other: nobody is there to renew it while
                it dials, and whoever reads it could read the authority's key too, so it lives as long as the authority
senders/local/  that of the sender in the same process, likewise
administrator/  the first administrator's credential, and the server's address
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from fleetcast_kit.data_parts import AUTHORITY, DataParts
from fleetcast_kit.errors import FailedPreconditionError, NotFoundError
from fleetcast_kit.files import make_private_directory, write_if_other
from fleetcast_kit.identity import certificates
from fleetcast_kit.identity.authority import AUTHORITY_LIFETIME, CertificateAuthority
from fleetcast_kit.identity.credentials import CERTIFICATE_FILE, Credentials
from fleetcast_kit.identity.peer import Identity, Role
from fleetcast_kit.identity.trust import ServerCredentials, TrustBundle
from fleetcast_kit.values.addresses import served_names

ADDRESS_FILE = "server.json"

SERVER_LIFETIME = timedelta(days=365)
"""Renewed with a third left, at a start or at a handshake, so nobody waits for it."""


@dataclass(frozen=True)
class Installation:
    """The authority of this installation, and the identities of the processes on this host."""

    directory: Path
    authority: CertificateAuthority
    trust: TrustBundle
    server: ServerCredentials
    """What the port shows; `services/server`."""
    service: Credentials
    """What the services of this process dial each other with; `services/server`, as long as the authority lives."""
    sender: Credentials
    """What the sender of this process dials with; `senders/local`."""
    administrator: Credentials
    """The credential of the first administrator; `administrators/local`."""
    former_authority_pem: bytes = b""
    """The authority of the administrator's credential that was there before; another one if it was made anew."""

    def publish_administrator(
        self, address: str, configuration_directory: Path, *, local_address: str = "", catalog_address: str = ""
    ) -> None:
        """Writes the administrator's credential with the server's `address` (HOST:PORT) to where commands find it.

        That is `administrator/` in the data directory, and `configuration_directory`, of this user on this host, unless
        that holds a credential of another server; the latter gets `local_address`, if given. `catalog_address` is given
        if the catalog has a port of its own.
        """
        addresses = {self.directory / "administrator": address}
        if self._may_write(configuration_directory):
            addresses[configuration_directory] = local_address or address
        for directory, shown in addresses.items():
            saved = {"address": shown} | ({"catalog_address": catalog_address} if catalog_address else {})
            self.administrator.save(directory)
            write_if_other(directory / ADDRESS_FILE, json.dumps(saved).encode() + b"\n")

    def ready_line(self, name: str, address: str) -> str:
        """Returns the sentence that says where the process `name` is, whom to trust and where the credential lies."""
        return (
            f"{name} is ready on {address}; authority SHA-256 {self.authority.fingerprint.hex()}; administrator's "
            f"credential in {self.directory / 'administrator'}"
        )

    def _may_write(self, configuration_directory: Path) -> bool:
        if not (configuration_directory / CERTIFICATE_FILE).exists():
            return True
        try:
            present = Credentials.load(configuration_directory)
        except FailedPreconditionError:
            return False
        return present.authority_pem in (self.administrator.authority_pem, self.former_authority_pem) and (
            present.identity == self.administrator.identity
        )


def open_installation(data_directory: Path, *, listen: str, advertise: Sequence[str] = ()) -> Installation:
    """Returns the installation in `data_directory`; makes what is missing, and makes anew what no longer fits.

    `listen` and `advertise` say under which names and addresses the server is reached; its certificate follows them.
    Killed at any moment, the next start completes the work.

    Raises:
        FailedPreconditionError: the directory cannot be written, or the authority in it is damaged.
        InvalidArgumentError: `listen` or one of `advertise` is no address.
    """
    names = served_names(listen, advertise)
    try:
        make_private_directory(data_directory)
        parts = DataParts(data_directory)
        authority = CertificateAuthority.open(data_directory / "authority", must_exist=parts.way_out(AUTHORITY))
        parts.note(AUTHORITY)
        keep = _keeper(authority, data_directory)
        service_identity = Identity.of(Role.SERVICE, "server")
        service = keep("server", service_identity, names=names, lifetime=SERVER_LIFETIME)
        dialling = keep("services/server", service_identity, names=(), lifetime=AUTHORITY_LIFETIME)
        sender = keep("senders/local", Identity.of(Role.SENDER, "local"), names=(), lifetime=AUTHORITY_LIFETIME)
        former = _present(data_directory / "administrator")
        administrator = keep(
            "administrator", Identity.of(Role.ADMINISTRATOR, "local"), names=(), lifetime=AUTHORITY_LIFETIME
        )
    except OSError as error:
        raise FailedPreconditionError(
            f"the data directory {data_directory} cannot be used: {error.strerror} ({error.filename}); "
            "choose another with --data-dir"
        ) from error
    trust = TrustBundle(authority.certificate)
    return Installation(
        directory=data_directory,
        authority=authority,
        trust=trust,
        server=ServerCredentials(
            service,
            trust,
            reissue=lambda: keep("server", service_identity, names=names, lifetime=SERVER_LIFETIME),
        ),
        service=dialling,
        sender=sender,
        administrator=administrator,
        former_authority_pem=former.authority_pem if former else b"",
    )


def _keeper(authority: CertificateAuthority, data_directory: Path) -> Callable[..., Credentials]:
    def keep(folder: str, identity: Identity, *, names: Iterable[str], lifetime: timedelta) -> Credentials:
        """Returns the credentials in `folder`, issued anew unless they are whole and fit."""
        directory = data_directory / folder
        present = _present(directory)
        if present is not None and _fits(present, authority, identity, names) and _lasts(present, authority, lifetime):
            return present
        issued = authority.issue_credentials(identity, names=names, lifetime=lifetime)
        issued.save(directory)
        return issued

    return keep


def _present(directory: Path) -> Credentials | None:
    try:
        return Credentials.load(directory)
    except (NotFoundError, FailedPreconditionError):
        return None


def _fits(present: Credentials, authority: CertificateAuthority, identity: Identity, names: Iterable[str]) -> bool:
    return (
        present.authority_pem == authority.certificate_pem
        and present.identity == identity
        and certificates.names_in(present.certificate) == tuple(sorted(names))
    )


def _lasts(present: Credentials, authority: CertificateAuthority, lifetime: timedelta) -> bool:
    """Returns whether a certificate is valid now, though a clock may have been wrong, and for a third of its life."""
    now, certificate = certificates.now(), present.certificate
    end = min(now + lifetime / 3, authority.certificate.not_valid_after_utc)
    return certificate.not_valid_before_utc <= now and certificate.not_valid_after_utc >= end
