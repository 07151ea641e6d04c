"""What a process proves its identity with, in memory and in a directory of three files."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fleetcast_kit.errors import FailedPreconditionError, NotFoundError
from fleetcast_kit.files import make_private_directory, write_if_other
from fleetcast_kit.identity import certificates
from fleetcast_kit.identity.peer import Identity, identity_in

AUTHORITY_FILE = "ca.pem"
CERTIFICATE_FILE = "cert.pem"
KEY_FILE = "key.pem"


@dataclass(frozen=True)
class Credentials:
    """A private key, its certificate, and the authority that issued it; all PEM."""

    key_pem: bytes = field(repr=False)
    certificate_pem: bytes
    authority_pem: bytes

    @classmethod
    def load(cls, directory: Path) -> Credentials:
        """Returns the credentials in `directory`.

        Raises:
            NotFoundError: there are none, or only a part.
            FailedPreconditionError: they cannot be read, or do not belong together.
        """
        content = {}
        for name in (KEY_FILE, CERTIFICATE_FILE, AUTHORITY_FILE):
            try:
                content[name] = (directory / name).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                raise NotFoundError(
                    f"there is no credential in {directory}: {name} is missing", reason="NO_CREDENTIAL"
                ) from None
            except OSError as error:
                raise FailedPreconditionError(
                    f"the credential in {directory} cannot be read: {error.strerror} ({name})"
                ) from error
        loaded = cls(content[KEY_FILE], content[CERTIFICATE_FILE], content[AUTHORITY_FILE])
        try:
            matches = loaded.private_key.public_key() == loaded.certificate.public_key()
            matches = matches and certificates.is_issued_by(loaded.certificate, loaded.authority)
        except ValueError as error:
            raise FailedPreconditionError(f"the credential in {directory} is damaged: {error}") from error
        if not matches:
            raise FailedPreconditionError(
                f"the files of the credential in {directory} do not belong together: remove it and make it anew"
            )
        return loaded

    def save(self, directory: Path) -> None:
        """Writes the three files, readable by their owner only; the certificate last, so what is there is usable.

        Raises:
            FailedPreconditionError: they cannot be written.
        """
        try:
            make_private_directory(directory)
            write_if_other(directory / KEY_FILE, self.key_pem)
            write_if_other(directory / AUTHORITY_FILE, self.authority_pem)
            write_if_other(directory / CERTIFICATE_FILE, self.certificate_pem)
        except OSError as error:
            raise FailedPreconditionError(
                f"the credential cannot be written to {directory}: {error.strerror}"
            ) from error

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Returns what a channel needs to prove this identity and to check the server's."""
        return grpc.ssl_channel_credentials(self.authority_pem, self.key_pem, self.certificate_pem)

    @property
    def private_key(self) -> ec.EllipticCurvePrivateKey:
        """The private key."""
        key = serialization.load_pem_private_key(self.key_pem, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("the key is not on an elliptic curve")
        return key

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate."""
        return x509.load_pem_x509_certificate(self.certificate_pem)

    @property
    def authority(self) -> x509.Certificate:
        """The certificate of the authority."""
        return x509.load_pem_x509_certificate(self.authority_pem)

    @property
    def identity(self) -> Identity:
        """Who bears it.

        Raises:
            FailedPreconditionError: the certificate names nobody.
        """
        identity = identity_in(self.certificate)
        if identity is None:
            raise FailedPreconditionError("the certificate of this credential states no fleetcast identity")
        return identity

    @property
    def renewal_time(self) -> datetime:
        """When the certificate should be renewed: with a third of its life left."""
        certificate = self.certificate
        life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        return certificate.not_valid_after_utc - life / 3
