"""What a machine is told to run: all that it needs for it."""

from __future__ import annotations

from fleetcast_kit.authority import CertificateAuthority

from fleetcast_scheduler.domain.deployment_ledger import DeploymentLedger
from fleetcast_scheduler.domain.run import Run
from fleetcast_scheduler.run_streams import Order


class OrderWriter:
    """Writes orders from what is at hand."""

    def __init__(self, ledger: DeploymentLedger, authority: CertificateAuthority) -> None:
        self._ledger = ledger
        self._authority = authority

    def write(self, run: Run, now: float) -> Order:
        """Returns the order of a run that has begun."""
        deployment = self._ledger.deployment_of(run)
        census = self._ledger.census
        resident = census.machine(run.machine)
        return Order(
            run=run.name,
            attempt=run.attempt,
            display_name=resident.display_name if resident is not None else run.display_name,
            image=deployment.content if deployment.is_image else "",
            content=deployment.pinned,
            collection_variables=census.collection_variables(resident) if resident is not None else {},
            machine_variables=dict(resident.variables) if resident is not None else {},
            deployment_variables=deployment.variables,
            remaining_seconds=(run.limit_time or now) - now,
            traceparent=deployment.traceparent,
        )
