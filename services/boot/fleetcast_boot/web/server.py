"""HTTP for boot loaders and the first stage: loaders, menus, and the files of the boot image."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol
from uuid import UUID

from aiohttp import web

from fleetcast_boot.domain import Asker, Firmware, Way
from fleetcast_boot.images import FIRST_STAGE, KERNEL, ROOT
from fleetcast_boot.progress import Stage
from fleetcast_boot.web.ending import end_by_reset

MAX_CONNECTIONS = 512
"""Of one service: a room of thirty opens a few each."""

_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_STAGES = {KERNEL: Stage.KERNEL, FIRST_STAGE: Stage.FIRST_STAGE, ROOT: Stage.IMAGE}


class BootPlan(Protocol):
    """What the server serves."""

    def loader(self, path: str) -> bytes | None:
        """Returns the content of a boot loader or of its first menu; None if there is none of that name."""

    def image_file(self, digest: str, name: str) -> Path | None:
        """Returns where a file of a boot image is; None if there is none of that name."""

    async def menu(self, asker: Asker, came_from: str) -> str:
        """Returns what a machine is told to start, that asks from an address."""

    def fetched(self, came_from: str, stage: Stage) -> None:
        """Notes that a machine, known by its address, came to a stage."""


def make_app(plan: BootPlan) -> web.Application:
    """Returns the HTTP application that serves a plan."""
    app = web.Application(middlewares=[_end_connections], client_max_size=0)

    async def loader(request: web.Request) -> web.StreamResponse:
        content = plan.loader(request.match_info["path"].strip("/"))
        if content is None:
            raise web.HTTPNotFound
        if request.method == "GET":
            plan.fetched(request.remote or "", Stage.LOADER)
        return web.Response(body=content, content_type="application/efi")

    async def menu(request: web.Request) -> web.StreamResponse:
        asker = _asker(request)
        if asker is None:
            raise web.HTTPNotFound
        text = await plan.menu(asker, request.remote or "") if request.method == "GET" else ""
        return web.Response(text=text, content_type="text/plain")

    async def image_file(request: web.Request) -> web.StreamResponse:
        digest, name = request.match_info["digest"], request.match_info["name"]
        path = plan.image_file(digest, name) if _DIGEST.fullmatch(digest) else None
        if path is None:
            raise web.HTTPNotFound
        if request.method == "GET" and name in _STAGES:
            plan.fetched(request.remote or "", _STAGES[name])
        return web.FileResponse(path, chunk_size=256 * 1024)

    app.router.add_get("/machine/{mac}", menu)
    app.router.add_get("/image/{digest}/{name}", image_file)
    app.router.add_get("/{path:.*}", loader)
    return app


@web.middleware
async def _end_connections(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Sends each answer whole, and ends its connection."""
    try:
        response = await handler(request)
    except web.HTTPException as refused:
        response = web.Response(status=refused.status, text=f"{refused.reason}\n")
    response.force_close()
    await response.prepare(request)
    await response.write_eof()
    if request.transport is not None:
        await end_by_reset(request.transport)
    return response


def _asker(request: web.Request) -> Asker | None:
    """Returns who asks for its menu; None if the address is not one of Ethernet.

    Loaders write the colons of the address as %3A or as they are, and its letters large or small.
    """
    mac = request.match_info["mac"].lower().replace("-", ":")
    if not _MAC.fullmatch(mac):
        return None
    if request.query.get("platform") == "pc":
        firmware = Firmware.BIOS
    elif request.query.get("cpu") in ("arm64", "aarch64"):
        firmware = Firmware.UEFI_ARM64
    else:
        firmware = Firmware.UEFI_AMD64
    try:
        uuids: tuple[UUID, ...] = (UUID(request.query.get("uuid", "")),)
    except ValueError:
        uuids = ()
    return Asker(mac, uuids, firmware, Way.PXE)
