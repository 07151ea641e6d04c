"""AuditService: the record of what people did."""

from __future__ import annotations

from fleetcast.scheduler.v1 import audit_service_pb2
from fleetcast.scheduler.v1.audit_service_pb2_grpc import AuditServiceServicer, add_AuditServiceServicer_to_server
from fleetcast_kit.identity.peer import Role
from fleetcast_kit.rpc import paging
from fleetcast_kit.rpc.context import Context
from fleetcast_kit.rpc.fields import timestamp
from fleetcast_kit.rpc.server import Service

from fleetcast_scheduler.audit.store import AuditStore


class AuditServicer(AuditServiceServicer):
    """Reads the record."""

    def __init__(self, store: AuditStore) -> None:
        self._store = store

    async def ListAuditEntries(
        self, request: audit_service_pb2.ListAuditEntriesRequest, context: Context
    ) -> audit_service_pb2.ListAuditEntriesResponse:
        """Returns a page of entries."""
        page = paging.by_time(request)
        found = await self._store.list_audit(page.after, page.limit, resource=request.resource, caller=request.caller)
        shown, token = page.cut(found, lambda row: (row.time, row.name))
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
            for row in shown
        ]
        return audit_service_pb2.ListAuditEntriesResponse(audit_entries=entries, next_page_token=token)


def audit_service(store: AuditStore) -> Service:
    """Returns the service, ready to be served."""
    return Service(
        add=add_AuditServiceServicer_to_server,
        servicer=AuditServicer(store),
        full_name="fleetcast.scheduler.v1.AuditService",
        roles={"ListAuditEntries": frozenset({Role.ADMINISTRATOR})},
    )
