"""DeploymentService: what an operator does with deployments."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fleetcast.scheduler.v1 import deployment_pb2, deployment_service_pb2
from fleetcast.scheduler.v1.deployment_service_pb2_grpc import (
    DeploymentServiceServicer,
    add_DeploymentServiceServicer_to_server,
)
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.identity.peer import Role
from fleetcast_kit.rpc import paging
from fleetcast_kit.rpc.context import Context
from fleetcast_kit.rpc.server import Service

from fleetcast_scheduler.deployments import convert
from fleetcast_scheduler.deployments.deployments import Deployments
from fleetcast_scheduler.deployments.domain.run import Run
from fleetcast_scheduler.deployments.machine_watch import MachineWatch
from fleetcast_scheduler.deployments.pump import RunPump
from fleetcast_scheduler.deployments.runs.logs import RunLogs
from fleetcast_scheduler.machines.convert import machine_message
from fleetcast_scheduler.names import deployment_name, machine_name, run_name


class DeploymentServicer(DeploymentServiceServicer):
    """Converts, calls, converts back."""

    def __init__(self, deployments: Deployments, pump: RunPump, logs: RunLogs, machines: MachineWatch) -> None:
        self._deployments = deployments
        self._operations = pump.operations
        self._clock = pump.clock
        self._logs = logs
        self._machines = machines

    async def CreateDeployment(
        self, request: deployment_service_pb2.CreateDeploymentRequest, context: Context
    ) -> deployment_service_pb2.CreateDeploymentResponse:
        """Makes a deployment, or says what it would do."""
        draft = convert.deployment_of(request.deployment)
        if request.validate_only:
            made, planned = await self._deployments.rehearse(draft, unpartitioned=request.unpartitioned)
        else:
            made, planned = await self._deployments.create(
                draft, request.confirmed_machine_count, request.request_id, unpartitioned=request.unpartitioned
            )
        return deployment_service_pb2.CreateDeploymentResponse(
            deployment=convert.deployment_message(made),
            planned_runs=map(convert.planned_run_message, planned),
            warnings=self._deployments.warnings(made, planned),
        )

    async def GetDeployment(
        self, request: deployment_service_pb2.GetDeploymentRequest, context: Context
    ) -> deployment_service_pb2.GetDeploymentResponse:
        """Returns one deployment."""
        deployment = await self._deployments.get(deployment_name(request.name))
        return deployment_service_pb2.GetDeploymentResponse(deployment=convert.deployment_message(deployment))

    async def ListDeployments(
        self, request: deployment_service_pb2.ListDeploymentsRequest, context: Context
    ) -> deployment_service_pb2.ListDeploymentsResponse:
        """Returns a page of deployments."""
        page = paging.by_time(request)
        found = await self._deployments.list_deployments(page.after, page.limit)
        shown, token = page.cut(found, lambda deployment: (deployment.create_time, deployment.name))
        return deployment_service_pb2.ListDeploymentsResponse(
            deployments=map(convert.deployment_message, shown), next_page_token=token
        )

    async def WatchDeployment(
        self, request: deployment_service_pb2.WatchDeploymentRequest, context: Context
    ) -> AsyncIterator[deployment_service_pb2.WatchDeploymentResponse]:
        """Streams a deployment and its runs."""
        if request.after_revision < 0:
            raise InvalidArgumentError(
                f"after_revision is {request.after_revision}: it cannot be negative", field="after_revision"
            )
        async for view in self._deployments.watch(deployment_name(request.name), request.after_revision):
            yield deployment_service_pb2.WatchDeploymentResponse(
                deployment=convert.deployment_message(view.deployment),
                runs=[convert.run_message(run, view.deployment.content) for run in view.runs],
                lost=view.lost,
            )

    async def PauseDeployment(
        self, request: deployment_service_pb2.PauseDeploymentRequest, context: Context
    ) -> deployment_service_pb2.PauseDeploymentResponse:
        """Holds what runs."""
        deployment, _ = await self._deployments.operate(
            deployment_name(request.name),
            "pause",
            request.request_id,
            lambda deployment: self._operations.pause(deployment, self._clock()),
        )
        return deployment_service_pb2.PauseDeploymentResponse(deployment=convert.deployment_message(deployment))

    async def ResumeDeployment(
        self, request: deployment_service_pb2.ResumeDeploymentRequest, context: Context
    ) -> deployment_service_pb2.ResumeDeploymentResponse:
        """Goes on after a pause."""
        deployment, _ = await self._deployments.operate(
            deployment_name(request.name),
            "resume",
            request.request_id,
            lambda deployment: self._operations.resume(deployment, self._clock()),
        )
        return deployment_service_pb2.ResumeDeploymentResponse(deployment=convert.deployment_message(deployment))

    async def CancelDeployment(
        self, request: deployment_service_pb2.CancelDeploymentRequest, context: Context
    ) -> deployment_service_pb2.CancelDeploymentResponse:
        """Ends a deployment."""
        deployment, _ = await self._deployments.operate(
            deployment_name(request.name),
            "cancel",
            request.request_id,
            lambda deployment: self._operations.cancel(deployment, self._clock()),
        )
        return deployment_service_pb2.CancelDeploymentResponse(deployment=convert.deployment_message(deployment))

    async def AdvanceDeployment(
        self, request: deployment_service_pb2.AdvanceDeploymentRequest, context: Context
    ) -> deployment_service_pb2.AdvanceDeploymentResponse:
        """Begins the next phase."""
        deployment, _ = await self._deployments.operate(
            deployment_name(request.name), "advance", request.request_id, self._operations.advance
        )
        return deployment_service_pb2.AdvanceDeploymentResponse(deployment=convert.deployment_message(deployment))

    async def RetryRuns(
        self, request: deployment_service_pb2.RetryRunsRequest, context: Context
    ) -> deployment_service_pb2.RetryRunsResponse:
        """Has machines run it again."""
        machines = [machine_name(name, "machines") for name in request.machines]
        deployment, runs = await self._deployments.operate(
            deployment_name(request.name),
            "retry",
            request.request_id,
            lambda deployment: self._operations.retry(deployment, machines, self._clock()),
        )
        return deployment_service_pb2.RetryRunsResponse(
            deployment=convert.deployment_message(deployment),
            runs=[convert.run_message(run, deployment.content) for run in runs],
        )

    async def SkipRuns(
        self, request: deployment_service_pb2.SkipRunsRequest, context: Context
    ) -> deployment_service_pb2.SkipRunsResponse:
        """Excepts machines."""
        machines = [machine_name(name, "machines") for name in request.machines]
        if not machines:
            raise InvalidArgumentError("machines is empty: name those to except", field="machines")
        deployment, runs = await self._deployments.operate(
            deployment_name(request.name),
            "skip",
            request.request_id,
            lambda deployment: self._operations.skip(deployment, machines, self._clock()),
        )
        return deployment_service_pb2.SkipRunsResponse(
            deployment=convert.deployment_message(deployment),
            runs=[convert.run_message(run, deployment.content) for run in runs],
        )

    async def ListRuns(
        self, request: deployment_service_pb2.ListRunsRequest, context: Context
    ) -> deployment_service_pb2.ListRunsResponse:
        """Returns a page of runs."""
        page = paging.by_time(request)
        if request.parent.startswith("machines/"):
            parent = machine_name(request.parent, "parent")
        else:
            parent = deployment_name(request.parent, "parent")
        found = await self._deployments.list_runs(parent, page.after, page.limit)
        shown, token = page.cut(found, lambda run: (run.create_time, run.name))
        return deployment_service_pb2.ListRunsResponse(
            runs=[await self._run_message(run) for run in shown], next_page_token=token
        )

    async def GetRun(
        self, request: deployment_service_pb2.GetRunRequest, context: Context
    ) -> deployment_service_pb2.GetRunResponse:
        """Returns one run with its steps."""
        run, steps = await self._deployments.get_run(run_name(request.name))
        return deployment_service_pb2.GetRunResponse(
            run=await self._run_message(run), steps=map(convert.step_message, steps)
        )

    async def ReadRunLog(
        self, request: deployment_service_pb2.ReadRunLogRequest, context: Context
    ) -> AsyncIterator[deployment_service_pb2.ReadRunLogResponse]:
        """Streams the log of a run."""
        async for piece in self._logs.read(run_name(request.name)):
            yield deployment_service_pb2.ReadRunLogResponse(data=piece)

    async def WatchMachine(
        self, request: deployment_service_pb2.WatchMachineRequest, context: Context
    ) -> AsyncIterator[deployment_service_pb2.WatchMachineResponse]:
        """Streams a machine and its runs."""
        async for view in self._machines.watch(machine_name(request.name)):
            yield deployment_service_pb2.WatchMachineResponse(
                machine=machine_message(view.machine, view.presence),
                runs=[await self._run_message(run) for run in view.runs],
                steps=[
                    deployment_service_pb2.WatchedStep(run=step.run, step=convert.step_message(step))
                    for step in view.steps
                ],
                lost=view.lost,
            )

    async def _run_message(self, run: Run) -> deployment_pb2.Run:
        return convert.run_message(run, await self._deployments.content(run.deployment))


def deployment_service(deployments: Deployments, pump: RunPump, logs: RunLogs, machines: MachineWatch) -> Service:
    """Returns the service, ready to be served."""
    methods = deployment_service_pb2.DESCRIPTOR.services_by_name["DeploymentService"].methods
    return Service(
        add=add_DeploymentServiceServicer_to_server,
        servicer=DeploymentServicer(deployments, pump, logs, machines),
        full_name="fleetcast.scheduler.v1.DeploymentService",
        roles=dict.fromkeys((method.name for method in methods), frozenset({Role.ADMINISTRATOR})),
    )
