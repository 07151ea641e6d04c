"""CollectionService: sets of machines."""

from __future__ import annotations

from collections.abc import Callable

from fleetcast.scheduler.v1 import collection_service_pb2
from fleetcast.scheduler.v1.collection_service_pb2_grpc import (
    CollectionServiceServicer,
    add_CollectionServiceServicer_to_server,
)
from fleetcast_kit.identity.peer import Role
from fleetcast_kit.rpc import paging
from fleetcast_kit.rpc.context import Context
from fleetcast_kit.rpc.server import Service

from fleetcast_scheduler.machines import convert
from fleetcast_scheduler.machines.collections import Collections
from fleetcast_scheduler.machines.domain.presence import MachinePresence
from fleetcast_scheduler.names import collection_name, machine_name


class CollectionServicer(CollectionServiceServicer):
    """Converts, calls, converts back."""

    def __init__(self, collections: Collections, presence: Callable[[str], MachinePresence]) -> None:
        self._collections = collections
        self._presence = presence

    async def CreateCollection(
        self, request: collection_service_pb2.CreateCollectionRequest, context: Context
    ) -> collection_service_pb2.CreateCollectionResponse:
        """Makes a collection."""
        wanted = convert.collection_of(request.collection)
        made = await self._collections.create(wanted, request.request_id)
        _, count = await self._collections.get(made.name)
        return collection_service_pb2.CreateCollectionResponse(collection=convert.collection_message(made, count))

    async def GetCollection(
        self, request: collection_service_pb2.GetCollectionRequest, context: Context
    ) -> collection_service_pb2.GetCollectionResponse:
        """Returns one collection."""
        found = await self._collections.get(collection_name(request.name))
        return collection_service_pb2.GetCollectionResponse(collection=convert.collection_message(*found))

    async def ListCollections(
        self, request: collection_service_pb2.ListCollectionsRequest, context: Context
    ) -> collection_service_pb2.ListCollectionsResponse:
        """Returns a page of collections."""
        page = paging.by_name(request)
        found = await self._collections.list_collections(page.after or "", page.limit)
        shown, token = page.cut(found, lambda one: one[0].name)
        return collection_service_pb2.ListCollectionsResponse(
            collections=[convert.collection_message(*one) for one in shown], next_page_token=token
        )

    async def UpdateCollection(
        self, request: collection_service_pb2.UpdateCollectionRequest, context: Context
    ) -> collection_service_pb2.UpdateCollectionResponse:
        """Changes a collection."""
        edited = await self._collections.update(
            collection_name(request.collection.name, "collection.name"),
            convert.collection_edit(request.collection, request.update_mask.paths),
            request.collection.etag,
            request.request_id,
        )
        return collection_service_pb2.UpdateCollectionResponse(collection=convert.collection_message(*edited))

    async def DeleteCollection(
        self, request: collection_service_pb2.DeleteCollectionRequest, context: Context
    ) -> collection_service_pb2.DeleteCollectionResponse:
        """Deletes a collection."""
        await self._collections.delete(collection_name(request.name), request.request_id)
        return collection_service_pb2.DeleteCollectionResponse()

    async def AddMembers(
        self, request: collection_service_pb2.AddMembersRequest, context: Context
    ) -> collection_service_pb2.AddMembersResponse:
        """Makes machines members."""
        names = [machine_name(name, "machines") for name in request.machines]
        name = collection_name(request.name)
        changed = await self._collections.change_members(name, names, request.request_id, add=True)
        return collection_service_pb2.AddMembersResponse(collection=convert.collection_message(*changed))

    async def RemoveMembers(
        self, request: collection_service_pb2.RemoveMembersRequest, context: Context
    ) -> collection_service_pb2.RemoveMembersResponse:
        """Ends memberships."""
        names = [machine_name(name, "machines") for name in request.machines]
        name = collection_name(request.name)
        changed = await self._collections.change_members(name, names, request.request_id, add=False)
        return collection_service_pb2.RemoveMembersResponse(collection=convert.collection_message(*changed))

    async def ListMembers(
        self, request: collection_service_pb2.ListMembersRequest, context: Context
    ) -> collection_service_pb2.ListMembersResponse:
        """Returns a page of members."""
        page = paging.by_name(request)
        found = await self._collections.list_members(collection_name(request.name), page.after or "", page.limit)
        shown, token = page.cut(found, lambda machine: machine.name)
        return collection_service_pb2.ListMembersResponse(
            machines=[convert.machine_message(one, self._presence(one.name)) for one in shown], next_page_token=token
        )


def collection_service(collections: Collections, presence: Callable[[str], MachinePresence]) -> Service:
    """Returns the service, ready to be served."""
    methods = (
        "CreateCollection",
        "GetCollection",
        "ListCollections",
        "UpdateCollection",
        "DeleteCollection",
        "AddMembers",
        "RemoveMembers",
        "ListMembers",
    )
    return Service(
        add=add_CollectionServiceServicer_to_server,
        servicer=CollectionServicer(collections, presence),
        full_name="fleetcast.scheduler.v1.CollectionService",
        roles=dict.fromkeys(methods, frozenset({Role.ADMINISTRATOR})),
    )
