"""Builds the deployments part of the scheduler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from fleetcast_kit.database import Database
from fleetcast_kit.identity.authority import CertificateAuthority
from fleetcast_kit.rpc.server import Service

from fleetcast_scheduler.audit.audit import Audit
from fleetcast_scheduler.catalog import Catalog
from fleetcast_scheduler.deployments.contents import Contents
from fleetcast_scheduler.deployments.deployments import Deployments
from fleetcast_scheduler.deployments.domain.deployment import DEFAULT_CONFIRMATION_LIMIT
from fleetcast_scheduler.deployments.domain.ledger import DeploymentLedger, RunTiming
from fleetcast_scheduler.deployments.domain.phases import awaited
from fleetcast_scheduler.deployments.machine_watch import MachineWatch
from fleetcast_scheduler.deployments.pump import RunPump
from fleetcast_scheduler.deployments.registrations import Registrations
from fleetcast_scheduler.deployments.runs.logs import RunLogs
from fleetcast_scheduler.deployments.runs.orders import OrderWriter
from fleetcast_scheduler.deployments.runs.servicer import run_service
from fleetcast_scheduler.deployments.servicer import deployment_service
from fleetcast_scheduler.deployments.store import DeploymentStore
from fleetcast_scheduler.machines.fleet_keeper import FleetKeeper
from fleetcast_scheduler.machines.machines import Machines
from fleetcast_scheduler.senders.waking import Waking


@dataclass(frozen=True, slots=True)
class DeploymentOptions:
    """What an administrator may set for deployments."""

    confirmation_limit: int = DEFAULT_CONFIRMATION_LIMIT
    """Deployments to more machines need their number confirmed."""
    time_zone: str = "UTC"
    """Of machines that do not say theirs."""
    timing: RunTiming = field(default_factory=RunTiming)


class DeploymentPart:
    """The services of deployments, and the loops behind them."""

    def __init__(
        self, pump: RunPump, orders: OrderWriter, contents: Contents, waking: Waking, services: list[Service]
    ) -> None:
        self.pump = pump
        self.orders = orders
        self.services = services
        self._contents = contents
        self._waking = waking

    def awaited(self, deployment: str) -> dict[str, str] | None:
        """Returns the machines that a deployment's sessions wait for, with names for people; None if it is over."""
        present = self.pump.ledger.deployments.get(deployment)
        if present is None or (present.state.final and not present.open_runs):
            return None
        return awaited(present)

    def start(self) -> list[asyncio.Task[None]]:
        """Returns the loops, which decide from now on; the catalog must have been dialled."""
        return [
            asyncio.create_task(self.pump.run(), name="scheduler deployments"),
            asyncio.create_task(self._contents.run(self.pump), name="scheduler contents"),
            asyncio.create_task(self._waking.run(), name="scheduler waking"),
        ]


async def open_deployments(
    database: Database,
    options: DeploymentOptions,
    *,
    authority: CertificateAuthority,
    catalog: Catalog,
    catalog_address: str,
    audit: Audit,
    fleet: FleetKeeper,
    machines: Machines,
    waking: Waking,
    clock: Callable[[], float],
) -> DeploymentPart:
    """Returns the part with what the database holds; nothing is decided before `start`."""
    store = DeploymentStore(database)
    await store.forget_unfinished_logs()
    ledger = DeploymentLedger(fleet.fleet, await store.load_open(), options.timing)
    contents = Contents(catalog)
    orders = OrderWriter(ledger, authority, catalog_address)
    pump = RunPump(
        ledger,
        store,
        write_order=orders.write,
        wake_machines=waking.wake,
        holds_changed=contents.keeper.changed,
        clock=clock,
    )
    pump.recover(await store.contact_times())
    fleet.changed = pump.wake
    machines.registered = Registrations(pump).registered
    machines.removed.append(pump.remove_machine)
    deployments = Deployments(pump, store, contents, audit, confirmation_limit=options.confirmation_limit)
    logs = RunLogs(pump, store)
    return DeploymentPart(
        pump,
        orders,
        contents,
        waking,
        [
            deployment_service(deployments, pump, logs, MachineWatch(machines, deployments, pump)),
            run_service(pump, logs, machines.admission.check),
        ],
    )
