"""Enrolment: an administrator gives out tokens, and whoever has one gets an identity for it."""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fleetcast_kit.errors import FailedPreconditionError, NotFoundError, ResourceExhaustedError
from fleetcast_kit.identity import certificates
from fleetcast_kit.identity.authority import CertificateAuthority
from fleetcast_kit.identity.enrolment_token import SECRET_BYTES, EnrolmentToken
from fleetcast_kit.identity.key_code import key_code
from fleetcast_kit.identity.peer import Identity, Peer, Role
from fleetcast_kit.identity.trust import TrustBundle
from fleetcast_kit.process import semconv, telemetry

from fleetcast_scheduler.enrolment.domain import (
    KNOCK_LIFETIME,
    KNOCK_PERIOD,
    MAX_KNOCKS_A_MINUTE,
    MAX_TRUSTED_TOKENS,
    MAX_USES,
    REMEMBERED,
    EnrolledCertificate,
    TokenPurpose,
    TokenRecord,
    certified_names,
    check_repeated,
    check_room,
    checked_lifetime,
    printable,
    refusal,
)
from fleetcast_scheduler.enrolment.store import EnrolmentStore

_logger = logging.getLogger(__name__)
_enrolments = telemetry.meter(__name__).create_counter(semconv.ENROLMENTS, description="Identities given for tokens")

_IDENTIFIER_BYTES = 10


class Enrolment:
    """What is done with enrolment tokens, with the store, the authority and the bundle that the server trusts."""

    def __init__(
        self,
        store: EnrolmentStore,
        authority: CertificateAuthority,
        trust: TrustBundle,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        max_tokens: int = MAX_TRUSTED_TOKENS,
    ) -> None:
        self._store = store
        self._trust = trust
        self._clock = clock
        self._max_tokens = max_tokens
        self._trusting = asyncio.Lock()
        self._knocks: deque[datetime] = deque()
        self._knock_tokens: tuple[str, str] = ("", "")
        self.redeem: Callable[[str, str], Awaitable[str]] = _redeem_nothing
        """Returns the machine whose identity a key, by its digest, gets for a ticket; raises if for none."""
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
        lifetime = checked_lifetime(uses, lifetime)
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
        if await self._store.get(token.id) is None:
            check_room(await self._store.count_active(now), self._max_tokens)
        stored = await self._store.add(record)
        check_repeated(stored, record, request_id)
        await self._trust_tokens()
        _logger.info("%s made %s", creator, stored.name)
        return stored, token.pack()

    async def knock_token(self) -> str:
        """Returns the text of the token that lets machines knock which start from the network: the present one.

        It is the same for all, since everybody on a segment can read it, and made anew from time to time.
        """
        now = self._clock()
        period = str(int(now.timestamp() // KNOCK_PERIOD.total_seconds()))
        if self._knock_tokens[0] != period:
            secret = self.authority.derive_secret(f"boot token {period}", SECRET_BYTES)
            token = EnrolmentToken(secret, self.authority.fingerprint)
            root = token.root(not_before=now - certificates.CLOCK_TOLERANCE, not_after=now + KNOCK_LIFETIME)
            record = TokenRecord(
                id=token.id,
                role=Role.MACHINE,
                uses=MAX_USES,
                used_count=0,
                create_time=now,
                expire_time=now + KNOCK_LIFETIME,
                revoke_time=None,
                creator="scheduler",
                root_pem=certificates.certificate_pem(root),
                purpose=TokenPurpose.KNOCK,
            )
            await self._store.add(record)
            await self._trust_tokens()
            self._knock_tokens = (period, token.pack())
        return self._knock_tokens[1]

    async def code_of(self, name: str) -> str:
        """Returns the code of the key of a machine that knocked and got no other identity; empty for others."""
        return await self._store.code_of(name)

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
        self, holder: Peer, *, display_name: str, advertised_names: Sequence[str] = (), ticket: str = ""
    ) -> EnrolledCertificate:
        """Returns an identity for the key that `holder` proved, and its certificate.

        A key that is enrolled already in the token's role gets its identity again, and uses nothing up.

        Raises:
            FailedPreconditionError: the token is expired or revoked.
            ResourceExhaustedError: the token is used up.
            InvalidArgumentError: the key or a name cannot be certified.
            FleetcastError: as `redeem` does, with a ticket.
        """
        public_key = _checked_key(holder.certificate)
        token_id = holder.identity.name.partition("/")[2]
        now = self._clock()
        record = await self._store.get(token_id)
        if record is None:
            raise FailedPreconditionError("this enrolment token is not known here: make a new one")
        names = certified_names(record.role, advertised_names)
        digest = hashes.Hash(hashes.SHA256())
        digest.update(certificates.public_key_der(public_key))
        key_digest = digest.finalize().hex()
        if ticket and record.purpose is TokenPurpose.KNOCK:
            identity = Identity.parse(await self.redeem(ticket, key_digest))
            await self._store.pass_on(
                public_key_digest=key_digest, identity=identity, display_name=printable(display_name), now=now
            )
            return self._enrolled(identity, public_key, (), display_name, "a ticket")
        name = await self._store.enrol(
            token_id,
            public_key_digest=key_digest,
            identity=Identity.of(record.role, _new_identifier()),
            display_name=printable(display_name),
            now=now,
            code=await self._knock(public_key, now) if record.purpose is TokenPurpose.KNOCK else "",
        )
        if name is None:
            record = await self._store.get(token_id) or record
            raise refusal(record, now)
        return self._enrolled(Identity.parse(name), public_key, names, display_name, record.name)

    def _enrolled(
        self,
        identity: Identity,
        public_key: ec.EllipticCurvePublicKey,
        names: Sequence[str],
        display_name: str,
        proof: str,
    ) -> EnrolledCertificate:
        certificate = self.authority.issue(public_key, identity, names=names)
        _enrolments.add(1, {"role": identity.role.value})
        _logger.info("enrolled %s (%s) with %s", identity, printable(display_name), proof)
        return EnrolledCertificate(identity, certificates.certificate_pem(certificate))

    async def _knock(self, public_key: ec.EllipticCurvePublicKey, now: datetime) -> str:
        """Returns the code of a key that knocks.

        Raises:
            ResourceExhaustedError: too many knocked within the last minute.
        """
        while self._knocks and self._knocks[0] <= now - timedelta(minutes=1):
            self._knocks.popleft()
        if len(self._knocks) >= MAX_KNOCKS_A_MINUTE:
            raise ResourceExhaustedError(
                f"{MAX_KNOCKS_A_MINUTE} machines asked for admission within a minute: try again in a minute",
                reason="TOO_MANY_KNOCKS",
            )
        self._knocks.append(now)
        return await asyncio.to_thread(key_code, certificates.public_key_der(public_key))

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
            records = await self._store.list_trusted(self._clock(), REMEMBERED, self._max_tokens)
            self._trust.set_token_roots(x509.load_pem_x509_certificate(record.root_pem) for record in records)


def _checked_key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    return certificates.load_public_key(certificates.public_key_der(certificate.public_key()))


def _new_identifier() -> str:
    """Returns 16 characters of base32, 80 random bits: no two among billions are equal."""
    return base64.b32encode(secrets.token_bytes(_IDENTIFIER_BYTES)).decode().lower()


async def _redeem_nothing(_ticket: str, _key_digest: str) -> str:
    raise FailedPreconditionError("no tickets are given here", reason="TICKET_ENDED")
