"""The server of every process: one TLS port with its services, health, reflection and a graceful end."""

from __future__ import annotations

import asyncio
import errno
import inspect
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from fleetcast_kit.errors import FailedPreconditionError
from fleetcast_kit.identity.peer import ENROLLED_ROLES, Role
from fleetcast_kit.identity.trust import ServerCredentials
from fleetcast_kit.process import telemetry
from fleetcast_kit.rpc import reflection
from fleetcast_kit.rpc.channel import COMMON_OPTIONS, KEEPALIVE, Keepalive
from fleetcast_kit.rpc.guard import GuardInterceptor
from fleetcast_kit.values.addresses import join_address, split_address

if sys.platform == "linux":
    import resource

_logger = logging.getLogger(__name__)

GRACE_SECONDS = 10.0
"""How long calls in flight may take to finish when the server stops."""

NOTICE_SECONDS = 0.05
"""Time between the health NOT_SERVING and the end of streams, so that those who watch the health see it."""

_OPTIONS = (
    *COMMON_OPTIONS,
    # With port sharing a second server on the same port would start, and get every other connection.
    ("grpc.so_reuseport", 0),
)


@dataclass(frozen=True)
class Service:
    """One gRPC service, ready to be served."""

    add: Callable[[Any, grpc.aio.Server], None]
    """The generated `add_…Servicer_to_server`."""
    servicer: object
    full_name: str
    """Such as `fleetcast.catalog.v1.CatalogService`."""
    roles: Mapping[str, frozenset[Role]]
    """Who may call each method, by its name in the proto. Every method must be here."""

    def check(self) -> None:
        """Makes sure that each method has its roles and a handler of the right form.

        Raises:
            ValueError: one has not; a defect of the program.
        """
        methods = {method.name: method for method in _methods_of(self.full_name)}
        if undeclared := methods.keys() - self.roles.keys():
            raise ValueError(f"{self.full_name}: no roles are declared for {', '.join(sorted(undeclared))}")
        if unknown := self.roles.keys() - methods.keys():
            raise ValueError(f"{self.full_name} has no method {', '.join(sorted(unknown))}")
        for name, method in methods.items():
            handler = getattr(self.servicer, name)
            if method.server_streaming and not inspect.isasyncgenfunction(handler):
                raise ValueError(f"{self.full_name}/{name} streams its answer: it must be an async generator")
            if not method.server_streaming and not inspect.iscoroutinefunction(handler):
                raise ValueError(f"{self.full_name}/{name} must be a coroutine function")


class GrpcServer:
    """A server with one TLS port. Callers without a certificate that the trust bundle knows do not get past TLS."""

    def __init__(
        self,
        listen: str,
        credentials: ServerCredentials,
        services: Sequence[Service],
        *,
        keepalive: Keepalive = KEEPALIVE,
    ) -> None:
        """Prepares to serve `services` on `listen` (HOST:PORT; port 0 takes a free one).

        Raises:
            InvalidArgumentError: `listen` is not HOST:PORT.
            ValueError: a service is not complete.
        """
        self._host, self._wanted_port = split_address(listen, field="listen")
        self._options = (*_OPTIONS, *keepalive.options())
        self._credentials = credentials
        self._services = tuple(services)
        for service in self._services:
            service.check()
        self._health = health.aio.HealthServicer()
        self._guard = GuardInterceptor(credentials.trust, self._roles())
        self._server: grpc.aio.Server | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """The TCP port; 0 before `start`."""
        return self._port

    async def start(self) -> None:
        """Opens the port and serves.

        Raises:
            FailedPreconditionError: the port cannot be opened; the sentence says why.
        """
        _allow_many_connections()
        server = grpc.aio.server(interceptors=[telemetry.server_interceptor(), self._guard], options=self._options)
        for service in self._services:
            service.add(service.servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.add_to_server([service.full_name for service in self._services], server)
        address = join_address(self._host, self._wanted_port)
        _probe(self._host, self._wanted_port)
        try:
            self._port = server.add_secure_port(address, self._credentials.for_port())
        except RuntimeError as error:
            raise FailedPreconditionError(f"cannot listen on {address}: {error}; check --listen") from error
        self._server = server
        for name in ["", *(service.full_name for service in self._services)]:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        await server.start()
        _logger.info("listening on %s", join_address(self._host, self._port))

    async def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Ends the server: health says NOT_SERVING, streams end with UNAVAILABLE, other calls may finish."""
        if self._server is None:
            return
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(NOTICE_SECONDS)
        self._guard.end_streams()
        await self._server.stop(grace_seconds)
        self._server = None

    def _roles(self) -> dict[str, frozenset[Role]]:
        roles = {
            f"/{service.full_name}/{method}": allowed
            for service in self._services
            for method, allowed in service.roles.items()
        }
        for name in (health.SERVICE_NAME, *reflection.SERVICE_NAMES):
            roles |= {
                f"/{name}/{method}": ENROLLED_ROLES for method in ("Check", "List", "Watch", "ServerReflectionInfo")
            }
        return roles


async def run_until_signal(start: Callable[[], Awaitable[str]], stop: Callable[[], Awaitable[None]]) -> None:
    """Awaits `start()`, prints the line that it returns, waits for SIGTERM or SIGINT, then awaits `stop()`.

    A signal that comes during the start ends it; `stop()` is awaited then too, and after a start that failed. A second
    signal ends the process at once.
    """

    async def serve() -> None:
        print(await start(), flush=True)
        await asyncio.Event().wait()

    loop = asyncio.get_running_loop()
    serving = asyncio.create_task(serve())
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, serving.cancel)
    try:
        await serving
    except asyncio.CancelledError:
        if not serving.cancelling():  # not by a signal: the start failed so
            raise
        _logger.info("stopping")
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        await stop()


def _allow_many_connections() -> None:
    """Raises the limit of open files as far as this process may: the usual one of 1,024 ends at a thousand machines."""
    if sys.platform == "linux":
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _methods_of(full_name: str) -> Sequence[Any]:
    try:
        return descriptor_pool.Default().FindServiceByName(full_name).methods
    except KeyError:
        raise ValueError(f"{full_name} is not the name of a known service") from None


def _probe(host: str, port: int) -> None:
    """Makes sure that the port can be opened, by opening it: gRPC itself does not tell why it cannot.

    Raises:
        FailedPreconditionError: it cannot; the sentence says why.
    """
    address = join_address(host, port)
    failures: list[OSError] = []
    try:
        candidates = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise FailedPreconditionError(
            f"cannot listen on {address}: {host!r} is not a known host name; check --listen"
        ) from error
    for family, kind, protocol, _, endpoint in candidates:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(endpoint)
                probe.listen(1)
        except OSError as error:
            failures.append(error)
    taken = [error for error in failures if error.errno == errno.EADDRINUSE]
    if taken:
        raise FailedPreconditionError(
            f"cannot listen on {address}: port {port} is in use by another process; stop that one, or choose another "
            "port with --listen",
            reason="PORT_IN_USE",
        ) from taken[0]
    if len(failures) == len(candidates):
        raise FailedPreconditionError(f"cannot listen on {address}: {_reason(failures[0])}") from failures[0]


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRNOTAVAIL:
        return "this host does not have that address; check --listen"
    if error.errno == errno.EACCES:
        return "a port below 1024 needs root; choose one above with --listen"
    return f"{os.strerror(error.errno or 0)}; check --listen"
