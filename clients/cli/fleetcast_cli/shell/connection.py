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
from fleetcast_kit.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    UnauthenticatedError,
    from_rpc_error,
)
from fleetcast_kit.identity.credentials import Credentials
from fleetcast_kit.rpc.channel import open_channel
from fleetcast_kit.values.addresses import join_address, split_address

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
    catalog: str | None = None
    """HOST:PORT of the catalog, or None for the address beside the credential; without one, it is the server's."""

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
        async with _dialled(address, credentials) as channel:
            yield channel

    @asynccontextmanager
    async def dial_catalog(self) -> AsyncIterator[grpc.aio.Channel]:
        """Gives a channel to the catalog, which may be on another host than the server."""
        server, credentials = self.resolve()
        saved = _saved(self.credentials or configuration_directory())
        address = self.catalog or (saved.get("catalog_address") if saved.get("address") == server else "")
        if address:
            address = join_address(*split_address(address, field="catalog"))
        async with _dialled(address or server, credentials) as channel:
            yield channel


@asynccontextmanager
async def _dialled(address: str, credentials: Credentials) -> AsyncIterator[grpc.aio.Channel]:
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
        raise UnauthenticatedError(
            f"{error.message.partition(': remove it')[0]}; copy the server's DATA_DIR/administrator there again, or "
            "name another directory with --credentials or FLEETCAST_CREDENTIALS",
            reason="CREDENTIAL_UNUSABLE",
        ) from error


def _saved(directory: Path) -> dict[str, str]:
    """Returns what lies beside the credential about addresses; empty if nothing usable does."""
    try:
        saved = json.loads((directory / "server.json").read_text())
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in saved.items()} if isinstance(saved, dict) else {}


def _saved_address(directory: Path) -> str:
    file = directory / "server.json"
    if not file.exists():
        raise InvalidArgumentError(
            f"no server address: give --server HOST:PORT or set FLEETCAST_SERVER ({file} does not exist)",
            field="server",
        )
    address = _saved(directory).get("address")
    if not address:
        raise InvalidArgumentError(
            f'{file} holds no address: write {{"address": "HOST:PORT"}} or give --server HOST:PORT', field="server"
        )
    return address
