"""Where the server is and who calls: from flags, environment or the configuration directory."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import grpc
import typer
from fleetcast_kit.addresses import join_address, split_address
from fleetcast_kit.channel import open_channel
from fleetcast_kit.credentials import Credentials
from fleetcast_kit.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    UnauthenticatedError,
    from_rpc_error,
)

UNARY_SECONDS = 30.0
"""Deadline of a call with one answer. The slowest, deleting an image, unlinks some ten thousand files: seconds."""


class _Page(Protocol):
    @property
    def next_page_token(self) -> str: ...


Page = TypeVar("Page", bound=_Page)


@dataclass(frozen=True)
class Connection:
    """What the flags say; read when a command first needs the server, so that bad input is found before."""

    server: str | None
    """HOST:PORT, or None for the address beside the credential."""
    credentials: Path | None
    """Directory of the credential, or None for the user's configuration."""

    def resolve(self) -> tuple[str, Credentials]:
        """Returns the address to dial and the credential to show.

        Raises:
            UnauthenticatedError: there is no credential, or it cannot be read.
            InvalidArgumentError: no address is known, or it is not one.
        """
        directory = self.credentials or configuration_directory()
        credentials = _load(directory)
        return join_address(*split_address(self.server or _saved_address(directory), field="server")), credentials

    @asynccontextmanager
    async def dial(self) -> AsyncIterator[grpc.aio.Channel]:
        """Gives a channel to the server; whatever a call inside raises leaves as a FleetcastError."""
        address, credentials = self.resolve()
        async with open_channel(address, credentials) as channel:
            try:
                yield channel
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error, address=address) from error


def connection(context: typer.Context) -> Connection:
    """Returns the connection that the flags of this invocation describe."""
    found = context.obj
    if not isinstance(found, Connection):
        raise TypeError("the command line's callback did not run before the command")
    return found


async def every_page(call: Callable[..., Awaitable[Page]], request: Any) -> AsyncIterator[Page]:
    """Gives the answers of a call that lists, page by page, beginning with the page that `request` asks for."""
    while True:
        answer = await call(request, timeout=UNARY_SECONDS)
        yield answer
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


def configuration_directory() -> Path:
    """Returns the user's configuration directory."""
    return Path.home() / ".config" / "fleetcast"


def _load(directory: Path) -> Credentials:
    try:
        return Credentials.load(directory)
    except NotFoundError as error:
        raise UnauthenticatedError(
            f"{error.message}; copy the server's DATA_DIR/administrator there, or name another directory with "
            "--credentials or FLEETCAST_CREDENTIALS",
            reason="NO_CREDENTIAL",
        ) from error
    except FailedPreconditionError as error:
        raise UnauthenticatedError(error.message, reason="CREDENTIAL_UNUSABLE") from error


def _saved_address(directory: Path) -> str:
    file = directory / "server.json"
    try:
        address = json.loads(file.read_text())["address"]
    except FileNotFoundError as error:
        raise InvalidArgumentError(
            f"no server address: give --server HOST:PORT or set FLEETCAST_SERVER ({file} does not exist)",
            field="server",
        ) from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InvalidArgumentError(
            f'{file} holds no address: write {{"address": "HOST:PORT"}} or give --server HOST:PORT', field="server"
        ) from error
    return str(address)
