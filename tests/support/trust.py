"""A server with an authority of its own on a free port of the loopback, and credentials to dial it with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
from fleetcast_kit.database import open_database
from fleetcast_kit.identity.authority import CertificateAuthority
from fleetcast_kit.identity.credentials import Credentials
from fleetcast_kit.identity.peer import Identity, Role
from fleetcast_kit.identity.trust import ServerCredentials, TrustBundle
from fleetcast_kit.rpc.channel import open_channel
from fleetcast_kit.rpc.server import GrpcServer, Service
from fleetcast_scheduler.enrolment.domain import MAX_TRUSTED_TOKENS
from fleetcast_scheduler.enrolment.enrolment import Enrolment
from fleetcast_scheduler.enrolment.servicer import enrolment_service
from fleetcast_scheduler.enrolment.store import EnrolmentStore

NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass
class TrustedServer:
    """A running server, and the authority that it trusts."""

    server: GrpcServer
    authority: CertificateAuthority
    trust: TrustBundle

    @property
    def address(self) -> str:
        return f"localhost:{self.server.port}"

    def credentials(self, role: Role, identifier: str = "test") -> Credentials:
        return self.authority.issue_credentials(
            Identity.of(role, identifier), names=NAMES if role in (Role.SENDER, Role.SERVICE) else ()
        )

    def dial(self, role: Role, identifier: str = "test") -> grpc.aio.Channel:
        return open_channel(self.address, self.credentials(role, identifier))


@asynccontextmanager
async def serving(
    services: Sequence[Service] = (), *, authority: CertificateAuthority | None = None, trust: TrustBundle | None = None
) -> AsyncIterator[TrustedServer]:
    """Gives a server with `services`; it stops at the end."""
    authority = authority or CertificateAuthority.create()
    trust = trust or TrustBundle(authority.certificate)
    credentials = authority.issue_credentials(Identity.of(Role.SERVICE, "server"), names=NAMES)
    server = GrpcServer("localhost:0", ServerCredentials(credentials, trust), services)
    await server.start()
    try:
        yield TrustedServer(server, authority, trust)
    finally:
        await server.stop(0)


@asynccontextmanager
async def serving_enrolment(
    directory: Path,
    *,
    authority: CertificateAuthority | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    max_tokens: int = MAX_TRUSTED_TOKENS,
    kind: type[Enrolment] = Enrolment,
) -> AsyncIterator[tuple[TrustedServer, Enrolment]]:
    """Gives a server with EnrolmentService, its tables in `directory`."""
    authority = authority or CertificateAuthority.create()
    trust = TrustBundle(authority.certificate)
    async with open_database(f"sqlite:///{directory / 'scheduler.db'}") as database:
        await database.upgrade("fleetcast_scheduler.migrations")
        enrolment = kind(EnrolmentStore(database), authority, trust, clock=clock, max_tokens=max_tokens)
        await enrolment.start()
        async with serving([enrolment_service(enrolment)], authority=authority, trust=trust) as running:
            yield running, enrolment
