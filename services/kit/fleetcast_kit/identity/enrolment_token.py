"""Enrolment tokens: a secret that stands for a key pair, with the fingerprint of the authority to expect.

Text: `fct1-` and 80 characters of base32 (RFC 4648) over 16 bytes of secret, 32 bytes of fingerprint and 2 bytes of
checksum. Case, spaces, and the digits 0, 1 and 8 for o, l and b do not matter to the reader.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import NameOID

from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.identity import certificates

PREFIX = "fct1-"
SECRET_BYTES = 16
_FINGERPRINT_BYTES = 32
_CHECKSUM_BYTES = 2
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # FIPS 186-4, D.1.2.3
_ROOT_NAME_PREFIX = "enrolment-token:"
_LOOKALIKES = str.maketrans("018", "olb")


@dataclass(frozen=True)
class EnrolmentToken:
    """A permission to enrol, in the hand of its holder."""

    secret: bytes = field(repr=False)
    authority_fingerprint: bytes
    """SHA-256 of the authority's certificate, 32 bytes."""

    @classmethod
    def create(cls, authority_fingerprint: bytes) -> EnrolmentToken:
        """Returns a new token."""
        return cls(secrets.token_bytes(SECRET_BYTES), authority_fingerprint)

    @classmethod
    def unpack(cls, text: str) -> EnrolmentToken:
        """Returns the token that `text` says.

        Raises:
            InvalidArgumentError: `text` was mistyped or cut, or is no token at all.
        """
        compact = "".join(text.split()).lower()
        if not compact.startswith(PREFIX):
            raise InvalidArgumentError(
                f"this is not an enrolment token: it does not start with {PREFIX!r}",
                field="token",
                reason="NOT_A_TOKEN",
            )
        encoded = compact.removeprefix(PREFIX).translate(_LOOKALIKES)
        expected_length = (SECRET_BYTES + _FINGERPRINT_BYTES + _CHECKSUM_BYTES) * 8 // 5
        if len(encoded) != expected_length:
            raise InvalidArgumentError(
                f"the enrolment token has {len(encoded)} characters after {PREFIX!r} instead of {expected_length}: "
                "copy it whole",
                field="token",
                reason="TOKEN_MISTYPED",
            )
        try:
            content = base64.b32decode(encoded.upper())
        except (binascii.Error, ValueError):
            content = b""
        payload, checksum = content[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:]
        if not content or checksum != _checksum(payload):
            raise InvalidArgumentError(
                "the enrolment token is mistyped (its checksum does not match): copy it again",
                field="token",
                reason="TOKEN_MISTYPED",
            )
        return cls(payload[:SECRET_BYTES], payload[SECRET_BYTES:])

    def pack(self) -> str:
        """Returns the text to hand over: a secret."""
        payload = self.secret + self.authority_fingerprint
        return PREFIX + base64.b32encode(payload + _checksum(payload)).decode().lower()

    @property
    def id(self) -> str:
        """What may be told of it: 16 characters of base32, from the secret by a one-way function."""
        return base64.b32encode(self._derive(b"id", 10)).decode().lower()

    def root(self, *, not_before: datetime, not_after: datetime) -> x509.Certificate:
        """Returns the certificate that a server trusts in order to recognise holders: all that it keeps."""
        return certificates.self_signed(
            self._key(), _ROOT_NAME_PREFIX + self.id, not_before=not_before, not_after=not_after
        )

    def leaf(self, public_key: ec.EllipticCurvePublicKey) -> x509.Certificate:
        """Returns the certificate by which the owner of `public_key` proves that it holds this token.

        Its own life has no end: the token's root bounds it by the server's clock, and the holder's clock may be wrong.
        """
        return certificates.leaf(
            public_key,
            f"holder of {self.id}",
            issuer_key=self._key(),
            issuer_common_name=_ROOT_NAME_PREFIX + self.id,
            not_before=datetime(2000, 1, 1, tzinfo=UTC),
            not_after=datetime(9999, 12, 31, tzinfo=UTC),
        )

    def _key(self) -> ec.EllipticCurvePrivateKey:
        # 48 bytes make the bias of the reduction to the order of the curve less than 2^-128.
        number = int.from_bytes(self._derive(b"key", 48), "big") % (_P256_ORDER - 1) + 1
        return ec.derive_private_key(number, ec.SECP256R1())

    def _derive(self, purpose: bytes, length: int) -> bytes:
        return HKDF(hashes.SHA256(), length, salt=None, info=b"fleetcast enrolment token 1: " + purpose).derive(
            self.secret
        )


def token_id_of(name: x509.Name) -> str | None:
    """Returns the id of the token whose root has the subject `name`, or None if it is no such root."""
    attributes = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    common_name = str(attributes[0].value) if len(attributes) == 1 else ""
    return common_name.removeprefix(_ROOT_NAME_PREFIX) if common_name.startswith(_ROOT_NAME_PREFIX) else None


def _checksum(payload: bytes) -> bytes:
    return hashlib.sha256(b"fleetcast enrolment token 1" + payload).digest()[:_CHECKSUM_BYTES]
