"""Server reflection, versions v1 and v1alpha: how `buf curl` learns what a server offers."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection, reflection_pb2

SERVICE_NAMES = ("grpc.reflection.v1.ServerReflection", reflection.SERVICE_NAME)


def add_to_server(names: Sequence[str], server: grpc.aio.Server) -> None:
    """Lets `server` describe the services `names`, and health.

    The two versions have the same messages on the wire; the library brings only the older one.
    """
    servicer = reflection.aio.ReflectionServicer([*names, health.SERVICE_NAME, *SERVICE_NAMES])
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in SERVICE_NAMES:
        generic = grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler})
        server.add_generic_rpc_handlers((generic,))
