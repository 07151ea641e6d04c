"""Builds the scheduler."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from fleetcast_kit.database import Database, open_database
from fleetcast_kit.database_ownership import end_process
from fleetcast_kit.errors import FleetcastError
from fleetcast_kit.identity.authority import CertificateAuthority
from fleetcast_kit.identity.credentials import Credentials
from fleetcast_kit.identity.trust import TrustBundle
from fleetcast_kit.rpc.server import Service

from fleetcast_scheduler.audit.audit import Audit
from fleetcast_scheduler.audit.servicer import audit_service
from fleetcast_scheduler.audit.store import AuditStore
from fleetcast_scheduler.boot.boot import Boot
from fleetcast_scheduler.boot.servicer import boot_service
from fleetcast_scheduler.boot.store import BootStore
from fleetcast_scheduler.calendar.local_time import time_zone
from fleetcast_scheduler.catalog import Catalog
from fleetcast_scheduler.deployments.app import DeploymentOptions, DeploymentPart, open_deployments
from fleetcast_scheduler.deployments.image_sessions import DeploymentSessions
from fleetcast_scheduler.deployments.runs.due_runs import DueRuns
from fleetcast_scheduler.enrolment.enrolment import Enrolment
from fleetcast_scheduler.enrolment.servicer import enrolment_service
from fleetcast_scheduler.enrolment.store import EnrolmentStore
from fleetcast_scheduler.machines.collection_servicer import collection_service
from fleetcast_scheduler.machines.collections import Collections
from fleetcast_scheduler.machines.domain.fleet import Fleet
from fleetcast_scheduler.machines.fleet_keeper import FleetKeeper
from fleetcast_scheduler.machines.machines import Machines
from fleetcast_scheduler.machines.servicer import machine_service
from fleetcast_scheduler.machines.store import MachineStore
from fleetcast_scheduler.senders.registry_servicer import sender_registry_service
from fleetcast_scheduler.senders.senders import Senders
from fleetcast_scheduler.senders.servicer import sender_service
from fleetcast_scheduler.senders.waking import Waking
from fleetcast_scheduler.sessions.awaited import Awaited
from fleetcast_scheduler.sessions.domain.dispatcher import Dispatcher
from fleetcast_scheduler.sessions.domain.session import Timing
from fleetcast_scheduler.sessions.holds import SessionHolds
from fleetcast_scheduler.sessions.participation_servicer import participation_service
from fleetcast_scheduler.sessions.pump import Pump
from fleetcast_scheduler.sessions.servicer import session_service
from fleetcast_scheduler.sessions.sessions import Sessions
from fleetcast_scheduler.sessions.store import MIGRATIONS, Store

_logger = logging.getLogger(__name__)

CONCLUDE_SECONDS = 10.0
"""How long the end waits for the database to take what was decided last: milliseconds, unless its disk is full."""


class SchedulerApp:
    """The scheduler: its services, and the loops behind them."""

    def __init__(
        self,
        database: Database,
        *,
        pump: Pump,
        catalog: Catalog,
        holds: SessionHolds,
        awaited: Awaited,
        deployments: DeploymentPart,
        services: Sequence[Service],
    ) -> None:
        self.services = list(services)
        """What a server serves. They answer once the server listens, and decide from `start` on."""
        self.pump = pump
        self.deployments = deployments
        self._database = database
        self._catalog = catalog
        self._holds = holds
        self._awaited = awaited
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, catalog_address: str, credentials: Credentials) -> None:
        """Starts to decide; the catalog is at `catalog_address` (HOST:PORT) and sees `credentials`, of a service.

        The catalog need not be there yet.
        """
        self._catalog.open(catalog_address, credentials)
        self._tasks = [
            asyncio.create_task(self.pump.run(), name="scheduler pump"),
            asyncio.create_task(self._holds.run(self.pump), name="scheduler holds"),
            asyncio.create_task(self._awaited.run(), name="scheduler awaited"),
            *self.deployments.start(),
        ]

    async def stop(self) -> None:
        """Stores what is decided and ends. To be awaited after the server stopped; nothing is lost without it."""
        if self._tasks:
            try:
                async with asyncio.timeout(CONCLUDE_SECONDS):
                    await self.pump.conclude()
                    await self.deployments.pump.conclude()
            except (TimeoutError, FleetcastError) as error:
                reason = str(error) or "the database does not answer"
                _logger.error("what the scheduler decided last is not stored: %s", reason)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._catalog.close()
        await self._database.close()


async def open_scheduler(
    database_url: str,
    *,
    authority: CertificateAuthority,
    trust: TrustBundle,
    catalog_address: str = "",
    timing: Timing | None = None,
    deployment_options: DeploymentOptions | None = None,
    must_exist: str = "",
    told_address: Callable[[str, str], str] = lambda sender_address, _: sender_address,
    clock: Callable[[], float] = time.time,
) -> SchedulerApp:
    """Returns the scheduler with what its database holds; nothing is decided before `start`.

    `trust` is the bundle of the server that will serve it: enrolment tokens go in there. `catalog_address` is what
    senders and machines are told, HOST:PORT; empty if the catalog is on the scheduler's own port. `told_address`
    returns what a machine is told of a sender, from the sender's HOST:PORT and the address that the machine calls from.
    If `must_exist` is not empty, a database without tables is refused: it says how to begin without what was stored.

    Raises:
        InvalidArgumentError: `database_url` is not of a supported database.
        FailedPreconditionError: a newer version of the program has used the database, another scheduler uses it, or it
            is gone.
        UnavailableError: the database cannot be opened.
    """
    options = deployment_options or DeploymentOptions()
    default_zone = time_zone(options.time_zone)
    database = open_database(database_url)
    try:
        await database.own("fleetcast-scheduler", end_process)
        await database.upgrade(MIGRATIONS, must_exist=must_exist)
        store = Store(database)
        now = clock()
        dispatcher = Dispatcher(
            timing,
            sessions=await store.load_open_sessions(),
            senders=await store.load_senders(),
            transmissions=await store.load_leases(now),
        )
        dispatcher.recover(now)
        enrolment = Enrolment(EnrolmentStore(database), authority, trust)
        await enrolment.start()
        machine_store = MachineStore(database)
        fleet = FleetKeeper(Fleet(default_zone), machine_store)
        await fleet.start()
        catalog = Catalog()
        holds = SessionHolds(catalog)
        pump = Pump(dispatcher, store, holds_changed=holds.keeper.changed, clock=clock)
        audit_store = AuditStore(database)
        audit = Audit(pump, audit_store)
        machines = Machines(machine_store, audit, fleet, clock)
        await machines.start()
        deployments = await open_deployments(
            database,
            options,
            authority=authority,
            catalog=catalog,
            catalog_address=catalog_address,
            audit=audit,
            fleet=fleet,
            machines=machines,
            waking=Waking(pump),
            clock=clock,
        )
    except BaseException:
        await database.close()
        raise
    collections = Collections(machine_store, audit, fleet, clock)
    machines.removed.append(pump.remove_machine)
    awaited = Awaited(pump, collections, deployments.awaited)
    awaited.refresh_deployments()  # before anything is decided: who is awaited is not stored
    sessions = Sessions(
        pump,
        store,
        catalog,
        holds,
        audit,
        admit=machines.admit,
        require_same_hardware=machines.require_same_hardware,
        members=awaited.members,
    )
    presence = deployments.pump.presence.of
    boot = Boot(
        BootStore(database),
        audit=audit,
        fleet=fleet.fleet,
        machines=machines,
        enrolment=enrolment,
        due_work=DueRuns(deployments.pump),
        clock=clock,
    )
    await boot.start()
    enrolment.redeem = boot.redeem
    machines.code_of, machines.admits, machines.admitted = enrolment.code_of, boot.admits, boot.admitted
    run_sessions = DeploymentSessions(deployments.pump, sessions, deployments.orders.restored)
    services = [
        session_service(sessions, pump),
        participation_service(sessions, run_sessions, pump, told_address),
        sender_registry_service(pump, catalog_address),
        sender_service(Senders(pump, audit)),
        audit_service(audit_store),
        machine_service(machines, presence),
        collection_service(collections, presence),
        enrolment_service(enrolment),
        boot_service(boot),
        *deployments.services,
    ]
    return SchedulerApp(
        database,
        pump=pump,
        catalog=catalog,
        holds=holds,
        awaited=awaited,
        deployments=deployments,
        services=services,
    )
