"""AuditService: the record of what people did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from fleetcast.scheduler.v1 import audit_service_pb2
from fleetcast.scheduler.v1.audit_service_pb2_grpc import AuditServiceServicer, add_AuditServiceServicer_to_server
from fleetcast_kit.identity.peer import Role
from fleetcast_kit.rpc.paging import page_size
from fleetcast_kit.rpc.server import Service

from fleetcast_scheduler.audit.store import AuditStore
from fleetcast_scheduler.fields import timestamp
from fleetcast_scheduler.positions import decode_position, encode_position

if TYPE_CHECKING:  # the class is generic in its stubs only
    _Context = grpc.aio.ServicerContext[Any, Any]


class AuditServicer(AuditServiceServicer):
    """Reads the record."""

    def __init__(self, store: AuditStore) -> None:
        self._store = store

    async def ListAuditEntries(
        self, request: audit_service_pb2.ListAuditEntriesRequest, context: _Context
    ) -> audit_service_pb2.ListAuditEntriesResponse:
        """Returns a page of entries."""
        size = page_size(request.page_size)
        found = await self._store.list_audit(
            decode_position(request.page_token), size + 1, resource=request.resource, caller=request.caller
        )
        entries = [
            audit_service_pb2.AuditEntry(
                name=row.name,
                time=timestamp(row.time),
                caller=row.caller,
                action=row.action,
                resource=row.resource,
                detail=row.detail,
                request_id=row.request_id,
                traceparent=row.traceparent,
                address=row.address,
            )
            for row in found[:size]
        ]
        token = encode_position(found[size - 1].time, found[size - 1].name) if len(found) > size else ""
        return audit_service_pb2.ListAuditEntriesResponse(audit_entries=entries, next_page_token=token)


def audit_service(store: AuditStore) -> Service:
    """Returns the service, ready to be served."""
    return Service(
        add=add_AuditServiceServicer_to_server,
        servicer=AuditServicer(store),
        full_name="fleetcast.scheduler.v1.AuditService",
        roles={"ListAuditEntries": frozenset({Role.ADMINISTRATOR})},
    )
