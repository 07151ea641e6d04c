"""The orders of runs: the message that tells a machine what to run, with all that it needs for that."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from fleetcast.scheduler.v1 import run_service_pb2
from fleetcast_kit.identity.authority import CertificateAuthority
from fleetcast_kit.identity.grants import issue_upload_grant
from fleetcast_sequence import (
    Scope,
    SequenceError,
    TaskSequence,
    Variables,
    from_canonical,
    owned_uploads,
    restored,
    uploads,
)

from fleetcast_scheduler.deployments.domain.deployment import Deployment
from fleetcast_scheduler.deployments.domain.ledger import DeploymentLedger
from fleetcast_scheduler.deployments.domain.run import Run
from fleetcast_scheduler.machines.domain.machine import Inventory

_logger = logging.getLogger(__name__)

_GRANT_MARGIN = timedelta(hours=1)
"""A grant outlasts the run: an upload that waits for its turn at the end must not fail for that."""


class OrderWriter:
    """Writes orders from the deployments, the fleet and the certificate authority."""

    def __init__(self, ledger: DeploymentLedger, authority: CertificateAuthority, catalog_address: str) -> None:
        self._ledger = ledger
        self._authority = authority
        self._catalog_address = catalog_address

    def write(self, run: Run, now: float) -> run_service_pb2.RunOrder:
        """Returns the order of a run that has begun."""
        deployment = self._ledger.deployment_of(run)
        facts = self._ledger.fleet.machine(run.machine)
        remaining_seconds = (run.limit_time or now) - now
        variables = _variables(run, deployment)
        display_name = facts.display_name if facts is not None else run.display_name
        grant = ""
        if deployment.pinned.uploads:
            grant = issue_upload_grant(
                self._authority,
                machine=run.machine,
                images=self._named(run, uploads),
                owned=self._named(run, owned_uploads),
                lifetime=timedelta(seconds=max(remaining_seconds, 0)) + _GRANT_MARGIN,
                now=datetime.fromtimestamp(now, UTC),
            )
        content = deployment.pinned
        order = run_service_pb2.RunOrder(
            run=run.name,
            task_sequence_digest=content.digest,
            images=[
                run_service_pb2.PinnedImage(image=image.name, size_bytes=image.size_bytes, is_wim=image.is_wim)
                for image in content.images
            ],
            collection_variables=variables[Scope.COLLECTION],
            machine_variables=variables[Scope.MACHINE],
            deployment_variables=variables[Scope.DEPLOYMENT],
            remaining_seconds=max(round(remaining_seconds), 1),
            traceparent=deployment.traceparent,
            upload_grant=grant,
            catalog_address=self._catalog_address,
            attempt=run.attempt,
            display_name=display_name,
        )
        if deployment.is_image:
            order.image = deployment.content
        else:
            order.task_sequence = content.task_sequence
        return order

    def restored(self, run: Run) -> list[str]:
        """Returns the images whose newest version a run puts back, as far as that is known before it begins."""
        return self._named(run, restored)

    def _named(self, run: Run, named: Callable[[TaskSequence, Variables], list[str]]) -> list[str]:
        """Returns the images that steps name where a run executes them; none if that cannot be computed."""
        deployment = self._ledger.deployment_of(run)
        facts = self._ledger.fleet.machine(run.machine)
        display_name = facts.display_name if facts is not None else run.display_name
        context = {
            "deployment": {"name": deployment.name, "run": run.name, "attempt": run.attempt},
            "machine": {"name": display_name} | (_facts(facts.inventory) if facts is not None else {}),
        }
        try:
            sequence = from_canonical(deployment.pinned.task_sequence)
            return named(sequence, Variables(sequence.variables, dict(_variables(run, deployment)), context=context))
        except (SequenceError, ValueError) as error:  # a form of a newer version of the program, perhaps
            _logger.warning("%s: the images that its steps name cannot be computed: %s", deployment.name, error)
            return []


def _variables(run: Run, deployment: Deployment) -> dict[Scope, Mapping[str, str]]:
    """Returns the values of a run that are known before it begins."""
    kept = run.variables or {}
    return {
        Scope.COLLECTION: kept.get("collection", {}),
        Scope.MACHINE: kept.get("machine", {}),
        Scope.DEPLOYMENT: dict(deployment.variables),
    }


def _facts(inventory: Inventory) -> dict[str, object]:
    """Returns what a machine said of itself as its own templates name it: only what it says there in the same words."""
    return {
        "manufacturer": inventory.manufacturer,
        "model": inventory.model,
        "serial": inventory.serial_number,
        "uuid": inventory.smbios_uuid,
        "firmware": inventory.firmware,
        "cpu_count": inventory.processor_count,
        "serial_number": inventory.serial_number,
        "smbios_uuid": inventory.smbios_uuid,
        "processor_count": inventory.processor_count,
        "memory_bytes": inventory.memory_bytes,
        "mac_addresses": list(inventory.mac_addresses),
        "disks": [
            {"path": disk.device, "model": disk.model, "serial": disk.serial_number, "size_bytes": disk.size_bytes}
            for disk in inventory.disks
        ],
    }
