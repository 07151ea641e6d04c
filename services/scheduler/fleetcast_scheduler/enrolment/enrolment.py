"""Enrolment: tokens that an administrator hands out, and the identities that their holders get for them."""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fleetcast_kit.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    FleetcastError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
)
from fleetcast_kit.identity import certificates
from fleetcast_kit.identity.authority import CertificateAuthority
from fleetcast_kit.identity.enrolment_token import SECRET_BYTES, EnrolmentToken
from fleetcast_kit.identity.peer import Identity, Peer, Role
from fleetcast_kit.identity.trust import TrustBundle
from fleetcast_kit.process import semconv, telemetry
from fleetcast_kit.values.durations import format_duration

from fleetcast_scheduler.enrolment.store import EnrolmentStore, TokenRecord

_logger = logging.getLogger(__name__)
_enrolments = telemetry.meter(__name__).create_counter(semconv.ENROLMENTS, description="Identities given for tokens")

DEFAULT_LIFETIME = timedelta(hours=24)
MAX_LIFETIME = timedelta(days=365)
MAX_USES = 1_000_000

REMEMBERED = timedelta(days=30)
"""How long the holder of an ended token is still let in to be told that it ended."""

MAX_TRUSTED_TOKENS = 256
"""Most tokens at once. Each handshake names them all to the caller, 50 bytes each: 13 kB, of the 64 kB that TLS has."""

MAX_ADVERTISED_NAMES = 64
_MAX_DISPLAY_NAME_LENGTH = 255
_IDENTIFIER_BYTES = 10


@dataclass(frozen=True)
class EnrolledCertificate:
    """What a holder gets for a token."""

    identity: Identity
    certificate_pem: bytes


class Enrolment:
    """The rules of enrolment, over their store, the authority and the bundle that the server trusts."""

    def __init__(
        self,
        store: EnrolmentStore,
        authority: CertificateAuthority,
        trust: TrustBundle,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._trust = trust
        self._clock = clock
        self._trusting = asyncio.Lock()
        self.authority = authority

    async def start(self) -> None:
        """Lets the holders of the stored tokens in. To be awaited before the server opens its port."""
        await self._trust_tokens()

    async def create_token(
        self, *, role: Role, uses: int, lifetime: timedelta, creator: Identity, request_id: str
    ) -> tuple[TokenRecord, str]:
        """Returns a new token's record and its text; the same ones for the same `request_id`.

        The text is not kept: for a repeated request it is computed again with the authority's key.

        Raises:
            InvalidArgumentError: `uses` or `lifetime` is out of range.
            AlreadyExistsError: `request_id` made a token with other properties.
            ResourceExhaustedError: too many tokens are in use.
        """
        if not 1 <= uses <= MAX_USES:
            raise InvalidArgumentError(f"uses is {uses}: choose 1 to {MAX_USES:,}", field="uses")
        if not timedelta(seconds=1) <= lifetime <= MAX_LIFETIME:
            raise InvalidArgumentError(
                f"a lifetime of {format_duration(lifetime)} is not possible: choose 1s to {MAX_LIFETIME.days}d",
                field="lifetime",
            )
        lifetime = timedelta(seconds=int(lifetime.total_seconds()))
        token = self._token(creator, request_id)
        now = self._clock()
        record = TokenRecord(
            id=token.id,
            role=role,
            uses=uses,
            used_count=0,
            create_time=now,
            expire_time=now + lifetime,
            revoke_time=None,
            creator=creator.name,
            root_pem=certificates.certificate_pem(
                token.root(not_before=now - certificates.CLOCK_TOLERANCE, not_after=now + lifetime + REMEMBERED)
            ),
        )
        if await self._store.count_active(now) >= MAX_TRUSTED_TOKENS and await self._store.get(token.id) is None:
            raise ResourceExhaustedError(
                f"{MAX_TRUSTED_TOKENS} enrolment tokens are in use: revoke some, or make one with more uses",
                reason="TOO_MANY_TOKENS",
            )
        stored = await self._store.add(record)
        if (stored.role, stored.uses, stored.expire_time - stored.create_time) != (role, uses, lifetime):
            raise AlreadyExistsError(
                f"request_id {request_id!r} made a token with other properties: use a new one",
                reason="REQUEST_ID_REUSED",
            )
        await self._trust_tokens()
        _logger.info("%s made %s", creator, stored.name)
        return stored, token.pack()

    async def list_tokens(self, limit: int, after: tuple[float, str] | None) -> Sequence[TokenRecord]:
        """Returns at most `limit` tokens, newest first, that come after the position (create time, id) `after`."""
        return await self._store.list(limit, after)

    async def revoke_token(self, token_id: str, *, revoker: Identity) -> TokenRecord:
        """Returns the token, which no longer works; revoking it again changes nothing.

        Raises:
            NotFoundError: there is no such token.
        """
        record = await self._store.revoke(token_id, self._clock())
        if record is None:
            raise NotFoundError(
                f"there is no enrolment token {token_id}: `fleetcast enrolment-token list` shows what there is",
                reason="ENROLMENT_TOKEN_NOT_FOUND",
            )
        _logger.info("%s revoked %s", revoker, record.name)
        return record

    async def enrol(
        self, holder: Peer, *, display_name: str, advertised_names: Sequence[str] = ()
    ) -> EnrolledCertificate:
        """Returns an identity for the key that `holder` proved, and its certificate.

        A key that is enrolled already in the token's role gets its identity again, and uses nothing up.

        Raises:
            FailedPreconditionError: the token is expired or revoked.
            ResourceExhaustedError: the token is used up.
            InvalidArgumentError: the key or a name cannot be certified.
        """
        public_key = _checked_key(holder.certificate)
        token_id = holder.identity.name.partition("/")[2]
        now = self._clock()
        record = await self._store.get(token_id)
        if record is None:
            raise FailedPreconditionError("this enrolment token is not known here: make a new one")
        names = _checked_names(record.role, advertised_names)
        digest = hashes.Hash(hashes.SHA256())
        digest.update(certificates.public_key_der(public_key))
        name = await self._store.enrol(
            token_id,
            public_key_digest=digest.finalize().hex(),
            identity=Identity.of(record.role, _new_identifier()),
            display_name=_printable(display_name),
            now=now,
        )
        if name is None:
            record = await self._store.get(token_id) or record
            raise _refusal(record, now)
        identity = Identity.parse(name)
        certificate = self.authority.issue(public_key, identity, names=names)
        _enrolments.add(1, {"role": record.role.value})
        _logger.info("enrolled %s (%s) with %s", identity, _printable(display_name), record.name)
        return EnrolledCertificate(identity, certificates.certificate_pem(certificate))

    def renew(self, bearer: Peer, public_key_der: bytes) -> bytes:
        """Returns a new certificate (PEM) for the bearer's identity and names, and the given key.

        Raises:
            InvalidArgumentError: the key cannot be certified.
        """
        public_key = certificates.load_public_key(public_key_der, field="public_key")
        names = certificates.names_in(bearer.certificate)
        return certificates.certificate_pem(self.authority.issue(public_key, bearer.identity, names=names))

    def _token(self, creator: Identity, request_id: str) -> EnrolmentToken:
        if not request_id:
            return EnrolmentToken.create(self.authority.fingerprint)
        secret = self.authority.derive_secret(f"enrolment token for {creator}: {request_id}", SECRET_BYTES)
        return EnrolmentToken(secret, self.authority.fingerprint)

    async def _trust_tokens(self) -> None:
        async with self._trusting:
            records = await self._store.list_trusted(self._clock(), REMEMBERED, MAX_TRUSTED_TOKENS)
            self._trust.set_token_roots(x509.load_pem_x509_certificate(record.root_pem) for record in records)


def _refusal(record: TokenRecord, now: datetime) -> FleetcastError:
    """Returns why a token does not work (any more)."""
    remedy = "make a new one with: fleetcast enrolment-token create"
    if record.revoke_time is not None:
        return FailedPreconditionError(
            f"this enrolment token was revoked at {record.revoke_time:%Y-%m-%d %H:%M} UTC: {remedy}",
            reason="TOKEN_REVOKED",
        )
    if record.expire_time <= now:
        return FailedPreconditionError(
            f"this enrolment token expired at {record.expire_time:%Y-%m-%d %H:%M} UTC: {remedy}",
            reason="TOKEN_EXPIRED",
        )
    return ResourceExhaustedError(
        f"this enrolment token is used up ({record.used_count} of {record.uses}): {remedy}", reason="TOKEN_USED_UP"
    )


def _checked_key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    return certificates.load_public_key(certificates.public_key_der(certificate.public_key()))


def _checked_names(role: Role, names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names for the certificate: a machine serves nobody, so it has none."""
    if role is Role.MACHINE:
        return ()
    if not 1 <= len(names) <= MAX_ADVERTISED_NAMES:
        raise InvalidArgumentError(
            f"{len(names)} names are advertised: a {role.value} needs 1 to {MAX_ADVERTISED_NAMES} names or addresses "
            "that it is reached by",
            field="advertised_names",
        )
    return tuple(dict.fromkeys(names))


def _new_identifier() -> str:
    """Returns 16 characters of base32, 80 random bits: no two among billions are equal."""
    return base64.b32encode(secrets.token_bytes(_IDENTIFIER_BYTES)).decode().lower()


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())[:_MAX_DISPLAY_NAME_LENGTH]
