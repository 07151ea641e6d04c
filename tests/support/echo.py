"""A gRPC service of the tests' own: `fleetcast.test.Echo`, over google.protobuf.StringValue.

rpc Get(StringValue) returns (StringValue);
rpc Refuse(StringValue) returns (StringValue);
rpc Watch(StringValue) returns (stream StringValue);
rpc Exchange(stream StringValue) returns (stream StringValue);
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from fleetcast_kit.errors import from_rpc_error
from fleetcast_kit.identity.peer import Role, current_identity
from fleetcast_kit.rpc.server import Service
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.wrappers_pb2 import StringValue

from tests.support.trust import TrustedServer

NAME = "fleetcast.test.Echo"
_STREAMING = {"Get": (False, False), "Refuse": (False, False), "Watch": (False, True), "Exchange": (True, True)}
"""Whether the request and the answer of each method are streams."""


class Echo:
    """Answers Get and Watch with what a test puts here: first, who calls."""

    def __init__(self) -> None:
        self.get: Callable[[], Awaitable[str]] = caller
        self.watch: Callable[[], AsyncIterator[str]] = caller_once

    async def Get(self, request: StringValue, context: Any) -> StringValue:
        return StringValue(value=await self.get())

    async def Refuse(self, request: StringValue, context: Any) -> StringValue:
        await context.abort(grpc.StatusCode.OUT_OF_RANGE, "by hand")
        return StringValue()

    async def Watch(self, request: StringValue, context: Any) -> AsyncIterator[StringValue]:
        async for value in self.watch():
            yield StringValue(value=value)

    async def Exchange(self, request_iterator: AsyncIterator[StringValue], context: Any) -> AsyncIterator[StringValue]:
        async for request in request_iterator:
            yield request


async def caller() -> str:
    return str(current_identity())


async def caller_once() -> AsyncIterator[str]:
    yield str(current_identity())


class EchoStub:
    """What a client calls."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        form: dict[str, Any] = {
            "request_serializer": StringValue.SerializeToString,
            "response_deserializer": StringValue.FromString,
        }
        self.Get: Any = channel.unary_unary(f"/{NAME}/Get", **form)
        self.Refuse: Any = channel.unary_unary(f"/{NAME}/Refuse", **form)
        self.Watch: Any = channel.unary_stream(f"/{NAME}/Watch", **form)
        self.Exchange: Any = channel.stream_stream(f"/{NAME}/Exchange", **form)


def echo_service(
    servicer: object | None = None, roles: frozenset[Role] = frozenset({Role.ADMINISTRATOR}), **others: frozenset[Role]
) -> Service:
    """Returns the service for a server; `others` are the roles of single methods."""
    return Service(add_to_server, servicer or Echo(), NAME, dict.fromkeys(_STREAMING, roles) | others)


def add_to_server(servicer: Any, server: grpc.aio.Server) -> None:
    """Registers the service, as generated code does."""
    handlers: dict[str, Any] = {}
    for name, streaming in _STREAMING.items():
        make: Any = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[streaming]
        handlers[name] = make(getattr(servicer, name), StringValue.FromString, StringValue.SerializeToString)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))


async def get(server: TrustedServer, role: Role = Role.ADMINISTRATOR) -> str:
    """Returns what `Get` answers; its failures are errors of the domain."""
    async with server.dial(role) as channel:
        try:
            return str((await EchoStub(channel).Get(StringValue(), timeout=10)).value)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error


async def watch(server: TrustedServer) -> list[str]:
    """Returns what `Watch` answers; its failures are errors of the domain."""
    async with server.dial(Role.ADMINISTRATOR) as channel:
        try:
            return [response.value async for response in EchoStub(channel).Watch(StringValue(), timeout=10)]
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error


def _describe() -> descriptor_pb2.FileDescriptorProto:
    package, _, service_name = NAME.rpartition(".")
    file = descriptor_pb2.FileDescriptorProto(name="fleetcast/test/echo.proto", package=package, syntax="proto3")
    file.dependency.append("google/protobuf/wrappers.proto")
    service = file.service.add(name=service_name)
    for name, (client_streaming, server_streaming) in _STREAMING.items():
        service.method.add(
            name=name,
            input_type=".google.protobuf.StringValue",
            output_type=".google.protobuf.StringValue",
            client_streaming=client_streaming,
            server_streaming=server_streaming,
        )
    return file


descriptor_pool.Default().Add(_describe())
