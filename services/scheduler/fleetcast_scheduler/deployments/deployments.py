"""What operators do with deployments: content is pinned and held, the rules decide, the decision is stored."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from fleetcast_kit.errors import FailedPreconditionError, NotFoundError
from fleetcast_kit.process import semconv, telemetry

from fleetcast_scheduler.audit.audit import Audit
from fleetcast_scheduler.deployments.contents import Contents
from fleetcast_scheduler.deployments.domain.deployment import Deployment
from fleetcast_scheduler.deployments.domain.planning import PlannedRun, check_begins, check_image, check_plan, plan
from fleetcast_scheduler.deployments.domain.run import Run, StepRun
from fleetcast_scheduler.deployments.domain.secret_variables import short_secrets
from fleetcast_scheduler.deployments.pump import RunPump
from fleetcast_scheduler.deployments.store import DeploymentStore
from fleetcast_scheduler.loop.locks import Locks
from fleetcast_scheduler.loop.watching import RevisionWatch
from fleetcast_scheduler.names import new_name

_logger = logging.getLogger(__name__)
_tracer = telemetry.tracer(__name__)


@dataclass(frozen=True, slots=True)
class DeploymentView:
    """A deployment as it is now, and the runs that a reader has not seen."""

    deployment: Deployment
    runs: list[Run]
    lost: bool = False


class Deployments:
    """Deployments, open and ended."""

    def __init__(
        self,
        pump: RunPump,
        store: DeploymentStore,
        contents: Contents,
        audit: Audit,
        *,
        confirmation_limit: int,
    ) -> None:
        self._pump = pump
        self._store = store
        self._contents = contents
        self._audit = audit
        self._confirmation_limit = confirmation_limit
        self._locks = Locks()

    # Making

    async def create(
        self, draft: Deployment, confirmed_count: int, request_id: str, *, unpartitioned: bool = False
    ) -> tuple[Deployment, list[PlannedRun]]:
        """Makes a deployment, or returns the one that the same request made before; and what it does where.

        With `unpartitioned` an image without a partition table may be written to whole disks.

        Raises:
            NotFoundError: the collection or what is deployed is not there.
            FailedPreconditionError: it may not be made; the sentence and the reason say why.
        """
        async with self._locks.held(f"request {request_id or secrets.token_hex(8)}"):
            name = await self._store.find_request(request_id) if request_id else None
            if name is not None:
                return await self.get(name), []
            now = self._pump.clock()
            draft.name, draft.create_time, draft.request_id = new_name("deployments", now), now, request_id
            self._check_collection(draft)
            with _tracer.start_as_current_span("deployment", attributes={semconv.DEPLOYMENT: draft.name}):
                draft.traceparent = telemetry.current_traceparent()
                async with self._contents.held(draft) as pinned:
                    draft.content, draft.pinned = pinned.name, pinned.content
                    check_image(pinned.image, unpartitioned=unpartitioned)
                    planned = self._plan(draft, pinned.required_variables, now)
                    check_begins(draft, planned)
                    self._confirm(draft, planned, confirmed_count)
                    self._pump.ledger.add(draft)
                    self._record("create", draft, request_id, content=draft.content, collection=draft.collection)
            await self._pump.durable()
            _logger.info("%s deploys %s to %s", draft.name, draft.content, draft.collection)
            return draft, planned

    async def rehearse(self, draft: Deployment, *, unpartitioned: bool = False) -> tuple[Deployment, list[PlannedRun]]:
        """Returns what would be made, and what would happen where. Nothing is made.

        Raises:
            NotFoundError: the collection or what is deployed is not there.
            FailedPreconditionError: it could not be made, whatever number is confirmed.
        """
        now = self._pump.clock()
        draft.create_time = now
        self._check_collection(draft)
        pinned = await self._contents.resolve(draft.content)
        draft.content, draft.pinned = pinned.name, pinned.content
        check_image(pinned.image, unpartitioned=unpartitioned)
        return draft, self._plan(draft, pinned.required_variables, now)

    def warnings(self, deployment: Deployment, planned: Sequence[PlannedRun]) -> list[str]:
        """Returns what somebody should know before the runs begin, a sentence each."""
        return short_secrets(deployment, self._pump.ledger.fleet, planned)

    # Reading

    async def get(self, name: str) -> Deployment:
        """Returns a deployment.

        Raises:
            NotFoundError: there is none of that name.
        """
        deployment = self._pump.ledger.deployments.get(name) or await self._store.find(name)
        if deployment is None:
            raise NotFoundError(
                f"there is no deployment {name.rpartition('/')[2]}: `fleetcast deployment list` shows what there is",
                reason="DEPLOYMENT_NOT_FOUND",
            )
        return deployment

    async def list_deployments(self, after: tuple[float, str] | None, limit: int) -> list[Deployment]:
        """Returns deployments, newest first; the ended ones without runs."""
        stored = await self._store.list_deployments(after, limit)
        present = self._pump.ledger.deployments
        return [present.get(deployment.name, deployment) for deployment in stored]

    async def list_runs(self, parent: str, after: tuple[float, str] | None, limit: int) -> list[Run]:
        """Returns the runs of a deployment or a machine, newest first."""
        if parent.startswith("machines/"):
            stored = await self._store.list_runs(after, limit, machine=parent)
        else:
            await self.get(parent)
            stored = await self._store.list_runs(after, limit, deployment=parent)
        return [self._present(run) for run in stored]

    async def get_run(self, name: str) -> tuple[Run, list[StepRun]]:
        """Returns a run with its steps.

        Raises:
            NotFoundError: there is none of that name.
        """
        run = await self._store.find_run(name)
        if run is None:
            raise NotFoundError(f"there is no run {name}: list them to see which there are", reason="RUN_NOT_FOUND")
        return self._present(run), await self._store.list_steps(name)

    async def content(self, name: str) -> str:
        """Returns what a deployment deploys; empty if it is not known any more."""
        present = self._pump.ledger.deployments.get(name)
        return present.content if present is not None else await self._store.content(name)

    async def watch(self, name: str, after_revision: int) -> AsyncIterator[DeploymentView]:
        """Yields a deployment and what changed since `after_revision`, then each change; ends when all is over.

        Raises:
            NotFoundError: there is none of that name.
        """
        deployment = await self.get(name)
        watch = RevisionWatch(self._pump, name, revision=deployment.revision, after_revision=after_revision)

        async def look() -> DeploymentView | None:
            seen = watch.take(deployment.revision)
            if seen is None:
                return None
            runs = [run for run in deployment.runs.values() if run.revision > seen]
            return DeploymentView(deployment, runs, watch.lost)

        def over() -> bool:
            return deployment.state.final and not deployment.open_runs and deployment.revision == watch.seen

        async with aclosing(watch.views(look, over)) as views:
            async for view in views:
                yield view

    # Operating

    async def operate(
        self, name: str, action: str, request_id: str, act: Callable[[Deployment], Sequence[Run] | None]
    ) -> tuple[Deployment, list[Run]]:
        """Carries out what an operator wants, once for each request id, and records it if it changed anything.

        Returns the deployment and the runs that it concerns.

        Raises:
            NotFoundError: there is no deployment of that name.
        """
        async with self._locks.held(f"request {request_id or secrets.token_hex(8)}"):
            deployment = await self.get(name)
            deployment = self._pump.ledger.deployments.setdefault(name, deployment)
            runs: list[Run] = []
            if await self._audit.recorded(request_id) is None:
                edit_count = deployment.edit_count
                runs = list(act(deployment) or ())
                if deployment.edit_count != edit_count:
                    machines = " ".join(run.machine for run in runs)[:4000]
                    self._record(action, deployment, request_id, machines=machines)
            await self._pump.durable()
            return deployment, runs

    def _check_collection(self, draft: Deployment) -> None:
        collection = self._pump.ledger.fleet.collection(draft.collection)
        if collection is None:
            raise NotFoundError(
                f"there is no collection {draft.collection.rpartition('/')[2]}: `fleetcast collection list` shows what "
                "there is",
                reason="COLLECTION_NOT_FOUND",
            )
        if collection.protected:
            raise FailedPreconditionError(
                f"{collection.name} is protected: nothing can be deployed to it", reason="PROTECTED"
            )

    def _plan(self, draft: Deployment, required_variables: Sequence[str], now: float) -> list[PlannedRun]:
        planned = plan(self._pump.ledger.fleet, draft, now)
        check_plan(self._pump.ledger.fleet, draft, planned, required_variables)
        return planned

    def _confirm(self, draft: Deployment, planned: Sequence[PlannedRun], confirmed_count: int) -> None:
        count = sum(one.targeted for one in planned)
        if confirmed_count == count or (count <= self._confirmation_limit and not confirmed_count):
            return
        raise FailedPreconditionError(
            f"this targets {count} machines of {draft.collection}"
            + (f", not {confirmed_count}" if confirmed_count else "")
            + f": confirm that number if it is right (from {self._confirmation_limit + 1} on it must be)",
            reason="CONFIRMATION_REQUIRED",
            metadata={"machine_count": str(count)},
        )

    def _record(self, action: str, deployment: Deployment, request_id: str, **detail: object) -> None:
        self._pump.audit(self._audit.row(f"deployment.{action}", deployment.name, request_id, **detail))

    def _present(self, run: Run) -> Run:
        """Returns a stored run as it is in memory, if it is there."""
        deployment = self._pump.ledger.deployments.get(run.deployment)
        last = deployment.runs.get(run.machine) if deployment is not None else None
        return last if last is not None and last.name == run.name else run
