"""TaskSequenceService: converts, calls, converts back."""

from __future__ import annotations

from fleetcast.catalog.v1 import task_sequence_service_pb2
from fleetcast.catalog.v1.task_sequence_service_pb2_grpc import (
    TaskSequenceServiceServicer,
    add_TaskSequenceServiceServicer_to_server,
)
from fleetcast_kit.identity.peer import Role
from fleetcast_kit.rpc import paging
from fleetcast_kit.rpc.context import Context
from fleetcast_kit.rpc.request_ids import checked_request_id
from fleetcast_kit.rpc.server import Service
from fleetcast_sequence import SequenceFileError

from fleetcast_catalog.images import convert
from fleetcast_catalog.task_sequences import convert as sequence_convert
from fleetcast_catalog.task_sequences.domain import TaskSequenceName, check_sequence_series
from fleetcast_catalog.task_sequences.task_sequences import CheckedSequence, TaskSequences


class TaskSequenceServicer(TaskSequenceServiceServicer):
    """The API of the task sequences."""

    def __init__(self, sequences: TaskSequences) -> None:
        self._sequences = sequences

    async def CreateTaskSequence(
        self, request: task_sequence_service_pb2.CreateTaskSequenceRequest, context: Context
    ) -> task_sequence_service_pb2.CreateTaskSequenceResponse:
        """Stores a file as a version."""
        checked_request_id(request.request_id)  # a version is recognised by its digest
        source_file = sequence_convert.source_file(request.source_file)
        try:
            checked, is_new = await self._sequences.create(request.source, source_file)
        except SequenceFileError as error:
            raise sequence_convert.file_error(error) from error
        message = sequence_convert.checked_message(checked)
        return task_sequence_service_pb2.CreateTaskSequenceResponse(task_sequence=message, created=is_new)

    async def ValidateTaskSequence(
        self, request: task_sequence_service_pb2.ValidateTaskSequenceRequest, context: Context
    ) -> task_sequence_service_pb2.ValidateTaskSequenceResponse:
        """Checks a file."""
        found = await self._sequences.validate(request.source)
        if isinstance(found, CheckedSequence):
            return task_sequence_service_pb2.ValidateTaskSequenceResponse(
                task_sequence=sequence_convert.checked_message(found)
            )
        return task_sequence_service_pb2.ValidateTaskSequenceResponse(
            problems=map(sequence_convert.problem_message, found)
        )

    async def GetTaskSequence(
        self, request: task_sequence_service_pb2.GetTaskSequenceRequest, context: Context
    ) -> task_sequence_service_pb2.GetTaskSequenceResponse:
        """Returns one version."""
        checked = await self._sequences.get(TaskSequenceName.parse(request.name))
        return task_sequence_service_pb2.GetTaskSequenceResponse(
            task_sequence=sequence_convert.checked_message(checked)
        )

    async def ListTaskSequences(
        self, request: task_sequence_service_pb2.ListTaskSequencesRequest, context: Context
    ) -> task_sequence_service_pb2.ListTaskSequencesResponse:
        """Returns a page of versions."""
        page = paging.by_number(request)
        series = check_sequence_series(request.task_sequence, field="task_sequence") if request.task_sequence else ""
        found = await self._sequences.page(series, page.after, page.limit, newest_only=request.newest_only)
        shown, token = page.cut(found, lambda version: version.id)
        return task_sequence_service_pb2.ListTaskSequencesResponse(
            task_sequences=map(sequence_convert.version_message, shown), next_page_token=token
        )

    async def GetTaskSequenceSource(
        self, request: task_sequence_service_pb2.GetTaskSequenceSourceRequest, context: Context
    ) -> task_sequence_service_pb2.GetTaskSequenceSourceResponse:
        """Returns the text of a version."""
        version, source = await self._sequences.source(TaskSequenceName.parse(request.name))
        return task_sequence_service_pb2.GetTaskSequenceSourceResponse(name=version.name, source=source)

    async def DeleteTaskSequence(
        self, request: task_sequence_service_pb2.DeleteTaskSequenceRequest, context: Context
    ) -> task_sequence_service_pb2.DeleteTaskSequenceResponse:
        """Deletes a version."""
        request_id = checked_request_id(request.request_id)
        name = await self._sequences.delete(TaskSequenceName.parse(request.name), request_id)
        return task_sequence_service_pb2.DeleteTaskSequenceResponse(name=name)

    async def ResolveTaskSequence(
        self, request: task_sequence_service_pb2.ResolveTaskSequenceRequest, context: Context
    ) -> task_sequence_service_pb2.ResolveTaskSequenceResponse:
        """Returns what a machine would run."""
        resolved = await self._sequences.resolve(TaskSequenceName.parse(request.name))
        return task_sequence_service_pb2.ResolveTaskSequenceResponse(
            resolved=sequence_convert.resolved_message(resolved)
        )

    async def HoldTaskSequence(
        self, request: task_sequence_service_pb2.HoldTaskSequenceRequest, context: Context
    ) -> task_sequence_service_pb2.HoldTaskSequenceResponse:
        """Resolves and holds a version and all that it needs."""
        holder = convert.holder(request.holder)
        resolved = await self._sequences.hold(TaskSequenceName.parse(request.name), holder)
        return task_sequence_service_pb2.HoldTaskSequenceResponse(resolved=sequence_convert.resolved_message(resolved))

    async def ReleaseTaskSequence(
        self, request: task_sequence_service_pb2.ReleaseTaskSequenceRequest, context: Context
    ) -> task_sequence_service_pb2.ReleaseTaskSequenceResponse:
        """Ends the holds of a holder."""
        await self._sequences.release(convert.holder(request.holder))
        return task_sequence_service_pb2.ReleaseTaskSequenceResponse()

    async def ListTaskSequenceHolds(
        self, request: task_sequence_service_pb2.ListTaskSequenceHoldsRequest, context: Context
    ) -> task_sequence_service_pb2.ListTaskSequenceHoldsResponse:
        """Returns holds."""
        holds = await self._sequences.holds(request.holder_prefix)
        return task_sequence_service_pb2.ListTaskSequenceHoldsResponse(holds=map(sequence_convert.hold_message, holds))


def task_sequence_service(sequences: TaskSequences) -> Service:
    """Returns the service, ready to be served."""
    administrator = frozenset({Role.ADMINISTRATOR})
    service = frozenset({Role.SERVICE})
    return Service(
        add=add_TaskSequenceServiceServicer_to_server,
        servicer=TaskSequenceServicer(sequences),
        full_name="fleetcast.catalog.v1.TaskSequenceService",
        roles={
            "CreateTaskSequence": administrator,
            "ValidateTaskSequence": administrator,
            "GetTaskSequence": administrator | service,
            "ListTaskSequences": administrator,
            "GetTaskSequenceSource": administrator,
            "DeleteTaskSequence": administrator,
            "ResolveTaskSequence": administrator | service,
            "HoldTaskSequence": service,
            "ReleaseTaskSequence": service,
            "ListTaskSequenceHolds": service,
        },
    )
