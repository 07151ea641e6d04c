"""The certificate authority of an installation: it makes the identities that all of its processes trust."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import NameOID

from fleetcast_kit.errors import FailedPreconditionError
from fleetcast_kit.files import make_private, make_private_directory, write_atomically
from fleetcast_kit.identity import certificates
from fleetcast_kit.identity.clock import check_clock
from fleetcast_kit.identity.credentials import AUTHORITY_FILE, KEY_FILE, Credentials
from fleetcast_kit.identity.peer import Identity

AUTHORITY_LIFETIME = timedelta(days=3652)
"""Ten years: as long as an installation is expected to live; a new authority means enrolling everybody anew."""

MACHINE_LIFETIME = timedelta(days=365)
"""A machine that is off for the summer still comes back; the agent renews with a third of it left."""


class CertificateAuthority:
    """A key that signs certificates, and its own certificate."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self.certificate = certificate
        self.certificate_pem = certificates.certificate_pem(certificate)
        self.fingerprint = certificates.fingerprint(certificate)
        """SHA-256 of the certificate in DER, 32 bytes: what enrolment tokens carry."""

    @classmethod
    def create(cls) -> CertificateAuthority:
        """Returns a new authority that exists in memory only."""
        key = certificates.generate_key()
        return cls(key, _root(key))

    @classmethod
    def open(cls, directory: Path, *, must_exist: str = "") -> CertificateAuthority:
        """Returns the authority in `directory`, made there on first use.

        The key is written before the certificate, so a process that dies in between leaves what the next one completes.

        Args:
            directory: where it is kept.
            must_exist: how to begin without it, for the error; if it is not empty, no new one is made.

        Raises:
            FailedPreconditionError: a part of it is lost or damaged.
        """
        key_file, certificate_file = directory / KEY_FILE, directory / AUTHORITY_FILE
        if must_exist and not key_file.exists() and not certificate_file.exists():
            raise FailedPreconditionError(
                f"the authority in {directory} is gone, and every machine and credential trusts it: restore it from a "
                f"backup; {must_exist}, and enrol every machine anew",
                reason="AUTHORITY_GONE",
            )
        make_private_directory(directory)
        with _locked(directory):
            if not key_file.exists():
                if certificate_file.exists():
                    raise FailedPreconditionError(
                        f"the authority in {directory} has lost its key {KEY_FILE}: restore it from a backup, "
                        "or remove the directory and enrol every machine anew"
                    )
                check_clock()
                write_atomically(key_file, certificates.private_key_pem(certificates.generate_key()))
            make_private(key_file)
            try:
                key = serialization.load_pem_private_key(key_file.read_bytes(), None)
                if not isinstance(key, ec.EllipticCurvePrivateKey):
                    raise ValueError("the key is not on an elliptic curve")
                if not certificate_file.exists():
                    write_atomically(certificate_file, certificates.certificate_pem(_root(key)), mode=0o644)
                certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
                if certificate.public_key() != key.public_key():
                    raise ValueError("the key and the certificate do not belong together")
            except (ValueError, OSError) as error:
                raise FailedPreconditionError(
                    f"the authority in {directory} cannot be read: {error}: restore it from a backup"
                ) from error
        _check_life(directory, certificate)
        return cls(key, certificate)

    def issue(
        self,
        public_key: ec.EllipticCurvePublicKey,
        identity: Identity,
        *,
        names: Iterable[str] = (),
        lifetime: timedelta = MACHINE_LIFETIME,
    ) -> x509.Certificate:
        """Returns a certificate that makes the owner of `public_key` the bearer of `identity`.

        With `names`, host names and addresses, the bearer may also serve under these. The life ends with the
        authority's at the latest.

        Raises:
            InvalidArgumentError: one of `names` is neither a host name nor an address.
        """
        now = certificates.now()
        return certificates.leaf(
            public_key,
            identity.name,
            issuer_key=self._key,
            issuer_common_name=_common_name(self.certificate),
            not_before=max(now - certificates.CLOCK_TOLERANCE, self.certificate.not_valid_before_utc),
            not_after=min(now + lifetime, self.certificate.not_valid_after_utc),
            uri=identity.uri,
            names=names,
        )

    def issue_credentials(
        self, identity: Identity, *, names: Iterable[str] = (), lifetime: timedelta = MACHINE_LIFETIME
    ) -> Credentials:
        """Returns complete credentials for `identity` with a new key: for processes beside the authority, and tests."""
        key = certificates.generate_key()
        certificate = self.issue(key.public_key(), identity, names=names, lifetime=lifetime)
        return Credentials(
            certificates.private_key_pem(key), certificates.certificate_pem(certificate), self.certificate_pem
        )

    def sign(self, purpose: str, content: bytes) -> bytes:
        """Returns the signature that `certificates.is_signed_by` checks, good for this `purpose` only."""
        return self._key.sign(certificates.purposed(purpose, content), ec.ECDSA(hashes.SHA256()))

    def derive_secret(self, purpose: str, length: int) -> bytes:
        """Returns `length` bytes that only this authority can compute, always the same for the same `purpose`."""
        key = self._key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return HKDF(hashes.SHA256(), length, salt=None, info=b"fleetcast secret: " + purpose.encode()).derive(key)


def _check_life(directory: Path, certificate: x509.Certificate) -> None:
    """Makes sure that an authority can certify now.

    Raises:
        FailedPreconditionError: not by this host's clock.
    """
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begin <= certificates.now() < end:
        raise FailedPreconditionError(
            f"the authority in {directory} is valid from {begin:%Y-%m-%d} to {end:%Y-%m-%d}, and this host's clock "
            f"says {certificates.now():%Y-%m-%d %H:%M} UTC: set the clock, if it is wrong; if it was wrong when the "
            f'authority was made, begin anew: remove {directory} and take "authority" out of parts.json beside it; '
            "every machine then enrols again",
            reason="CLOCK_WRONG",
        )


def _root(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    now = certificates.now()
    return certificates.self_signed(
        key,
        f"fleetcast authority {secrets.token_hex(4)}",
        not_before=now - certificates.CLOCK_TOLERANCE,
        not_after=now + AUTHORITY_LIFETIME,
    )


def _common_name(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Keeps two first starts in one directory apart."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
