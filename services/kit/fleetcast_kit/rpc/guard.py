"""What surrounds every call on a server: who calls, whether they may, and what becomes of an error."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, NoReturn

import grpc
from opentelemetry import trace

from fleetcast_kit.errors import (
    DETAILS_KEY,
    FleetcastError,
    InternalError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
    from_rpc_error,
    to_status,
)
from fleetcast_kit.identity.peer import Role, set_current_peer
from fleetcast_kit.identity.trust import TrustBundle
from fleetcast_kit.process import semconv
from fleetcast_kit.rpc.context import Context, Handler
from fleetcast_kit.storage_failures import storage_failure
from fleetcast_kit.values.addresses import peer_address

_logger = logging.getLogger(__name__)


class GuardInterceptor(grpc.aio.ServerInterceptor):
    """Lets each call in by role, tells the handler who calls, and turns exceptions into status."""

    def __init__(self, trust: TrustBundle, roles: Mapping[str, frozenset[Role]]) -> None:
        self._trust = trust
        self._roles = roles
        self._guarded: dict[str, Handler] = {}
        self._streams: set[asyncio.Task[Any]] = set()
        self._stopping = False

    def end_streams(self) -> None:
        """Ends every streamed answer with UNAVAILABLE; its handler sees a cancellation and cleans up."""
        self._stopping = True
        for task in tuple(self._streams):
            task.cancel()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Returns the handler of the method with the guard around it."""
        method = handler_call_details.method
        if method not in self._guarded:
            handler = await continuation(handler_call_details)
            if handler is None:
                return handler
            self._guarded[method] = self._guard(method, handler)
        return self._guarded[method]

    def _guard(self, method: str, handler: Handler) -> Handler:
        behavior = handler.unary_unary or handler.stream_unary or handler.unary_stream or handler.stream_stream
        wrapped: Any
        if not handler.response_streaming:
            wrapped = self._guard_unary(method, behavior)
            make = (
                grpc.stream_unary_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_unary_rpc_method_handler
            )
            return make(wrapped, handler.request_deserializer, handler.response_serializer)
        # A coroutine that writes to its context is grpc.aio's other form of a stream; the health service has one.
        is_generator = inspect.isasyncgenfunction(behavior)
        wrapped = self._guard_stream(method, behavior) if is_generator else self._guard_unary(method, behavior, True)
        make_streaming = (
            grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
        )
        return make_streaming(wrapped, handler.request_deserializer, handler.response_serializer)

    def _guard_unary(self, method: str, behavior: Any, streams: bool = False) -> Any:
        async def guarded(request: Any, context: Context) -> Any:
            task = self._enter_stream() if streams else None
            try:
                self._admit(method, context)
                return await behavior(request, context)
            except asyncio.CancelledError:
                await self._end_cancelled(task, method, context)
                raise
            except Exception as error:
                await _abort(context, method, error)
            finally:
                self._streams.discard(task)

        return guarded

    def _guard_stream(self, method: str, behavior: Any) -> Any:
        async def guarded(request: Any, context: Context) -> AsyncIterator[Any]:
            task = self._enter_stream()
            try:
                self._admit(method, context)
                async for response in behavior(request, context):
                    yield response
            except asyncio.CancelledError:
                await self._end_cancelled(task, method, context)
                raise
            except Exception as error:
                await _abort(context, method, error)
            finally:
                self._streams.discard(task)

        return guarded

    def _enter_stream(self) -> asyncio.Task[Any]:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a handler of gRPC runs outside of a task")
        self._streams.add(task)
        return task

    async def _end_cancelled(self, task: asyncio.Task[Any] | None, method: str, context: Context) -> None:
        if self._stopping and task in self._streams:
            task.uncancel()
            await _abort(context, method, UnavailableError("the server is stopping", reason="SERVER_STOPPING"))
        # The tracing interceptor would leave the span of a call that its caller cancelled with the code of success.
        code: int = grpc.StatusCode.CANCELLED.value[0]
        trace.get_current_span().set_attribute("rpc.grpc.status_code", code)

    def _admit(self, method: str, context: Context) -> None:
        peer = self._trust.identify(b"".join(context.auth_context().get("x509_pem_cert", ())))
        if peer is None:
            raise UnauthenticatedError(
                "the caller's certificate states no identity of this installation", reason="UNKNOWN_IDENTITY"
            )
        identity = peer.identity
        span = trace.get_current_span()
        span.set_attributes({semconv.CALLER: identity.name, semconv.CALLER_ROLE: identity.role.value})
        allowed = self._roles.get(method, frozenset())
        if identity.role not in allowed:
            raise PermissionDeniedError(
                f"{identity.name} has the role {identity.role.value}; "
                f"{method.lstrip('/')} is for: {', '.join(sorted(allowed)) or 'nobody'}",
                reason="ROLE_NOT_ALLOWED",
                metadata={"caller": identity.name, "role": identity.role.value, "method": method},
            )
        set_current_peer(replace(peer, address=peer_address(context.peer())))


async def _abort(context: Context, method: str, error: BaseException) -> NoReturn:
    """Ends the call with the status of `error`; what is not meant for the caller goes to the log."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, grpc.aio.AioRpcError):
        error = _from_nested_call(error, method)
    if not isinstance(error, FleetcastError) and (failure := storage_failure(error)) is not None:
        _logger.error("%s failed: %s", method, error)
        error = failure
    if not isinstance(error, FleetcastError):
        _logger.error("%s failed: %s", method, error, exc_info=error)
        error = InternalError("the server met an error of its own: its log says more")
    trace.get_current_span().set_attribute(semconv.ERROR_REASON, error.reason)
    await context.abort(error.code, error.message, ((DETAILS_KEY, to_status(error).SerializeToString()),))


def _from_nested_call(error: grpc.aio.AioRpcError, method: str) -> FleetcastError:
    """Returns what a failed call to another service means to the caller of this one."""
    nested = from_rpc_error(error)
    if isinstance(nested, UnauthenticatedError | PermissionDeniedError | InternalError):
        _logger.error("%s failed in a call to another service: %s", method, nested.message)
        return InternalError("the server met an error of its own: its log says more")
    return nested
