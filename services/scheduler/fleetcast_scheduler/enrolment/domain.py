"""The rules of enrolment: what a token may be, when it works, and what its holder may be certified for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from fleetcast_kit.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    FleetcastError,
    InvalidArgumentError,
    ResourceExhaustedError,
)
from fleetcast_kit.identity.peer import Identity, Role
from fleetcast_kit.values.durations import format_duration

DEFAULT_LIFETIME = timedelta(hours=24)
MAX_LIFETIME = timedelta(days=365)
MAX_USES = 1_000_000

REMEMBERED = timedelta(days=30)
"""How long the holder of an ended token is still let in to be told that it ended."""

MAX_TRUSTED_TOKENS = 256
"""Most tokens at once. Each handshake names them all to the caller, 50 bytes each: 13 kB, of the 64 kB that TLS has."""

MAX_ADVERTISED_NAMES = 64
_MAX_DISPLAY_NAME_LENGTH = 255


class TokenPurpose(StrEnum):
    """What a token is for."""

    ENROL = ""
    """Its holders are enrolled."""
    KNOCK = "knock"
    """Everybody on a network segment can read it, so its holders may ask for admission, and no more."""


KNOCK_LIFETIME = timedelta(days=60)
KNOCK_PERIOD = timedelta(days=30)
"""After this a new one is handed out; that before works for as long again."""

MAX_KNOCKS_A_MINUTE = 120
"""Of all machines together. A room of a hundred that is switched on at once gets through; a stranger fills no table."""


@dataclass(frozen=True)
class EnrolledCertificate:
    """What a holder gets for a token."""

    identity: Identity
    certificate_pem: bytes


@dataclass(frozen=True)
class TokenRecord:
    """What is kept of a token: all but its secret."""

    id: str
    role: Role
    """What its holders become."""
    uses: int
    used_count: int
    create_time: datetime
    expire_time: datetime
    revoke_time: datetime | None
    creator: str
    """Who made it, `administrators/{id}`."""
    root_pem: bytes
    """The certificate by which its holders are recognised."""
    purpose: TokenPurpose = TokenPurpose.ENROL

    @property
    def name(self) -> str:
        """Its resource name."""
        return f"enrolmentTokens/{self.id}"


def checked_lifetime(uses: int, lifetime: timedelta) -> timedelta:
    """Returns the lifetime of a new token, in whole seconds.

    Raises:
        InvalidArgumentError: `uses` or `lifetime` is out of range.
    """
    if not 1 <= uses <= MAX_USES:
        raise InvalidArgumentError(f"uses is {uses}: choose 1 to {MAX_USES:,}", field="uses")
    if not timedelta(seconds=1) <= lifetime <= MAX_LIFETIME:
        raise InvalidArgumentError(
            f"a lifetime of {format_duration(lifetime)} is not possible: choose 1s to {MAX_LIFETIME.days}d",
            field="lifetime",
        )
    return timedelta(seconds=int(lifetime.total_seconds()))


def check_room(active_count: int, max_count: int) -> None:
    """Makes sure that one more token can be in use.

    Raises:
        ResourceExhaustedError: `active_count` is the most already.
    """
    if active_count >= max_count:
        raise ResourceExhaustedError(
            f"{max_count} enrolment tokens are in use: revoke some, or make one with more uses",
            reason="TOO_MANY_TOKENS",
        )


def check_repeated(stored: TokenRecord, wanted: TokenRecord, request_id: str) -> None:
    """Makes sure that a repeated request wants the token that it made before.

    Raises:
        AlreadyExistsError: it made a token with other properties.
    """
    if (stored.role, stored.uses, stored.expire_time - stored.create_time) != (
        wanted.role,
        wanted.uses,
        wanted.expire_time - wanted.create_time,
    ):
        raise AlreadyExistsError(
            f"request_id {request_id!r} made a token with other properties: use a new one",
            reason="REQUEST_ID_REUSED",
        )


def refusal(record: TokenRecord, now: datetime) -> FleetcastError:
    """Returns why a token does not work, or no longer works."""
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


def certified_names(role: Role, names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names that go into a certificate; none for a machine, which serves nobody.

    Raises:
        InvalidArgumentError: a sender or a service has none, or too many.
    """
    if role is Role.MACHINE:
        return ()
    if not 1 <= len(names) <= MAX_ADVERTISED_NAMES:
        raise InvalidArgumentError(
            f"{len(names)} names are advertised: a {role.value} needs 1 to {MAX_ADVERTISED_NAMES} names or addresses "
            "that it is reached by",
            field="advertised_names",
        )
    return tuple(dict.fromkeys(names))


def printable(text: str) -> str:
    """Returns a name for people without what cannot be printed, and not longer than is kept."""
    return "".join(character for character in text if character.isprintable())[:_MAX_DISPLAY_NAME_LENGTH]
