"""Image versions in the database: every question the catalog asks of its tables."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from fleetcast_kit.database import Database
from fleetcast_kit.errors import FailedPreconditionError, NotFoundError
from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from fleetcast_catalog.deletions import reclaimed_by, remember_deletion
from fleetcast_catalog.images.chunk_table import ChunkTable
from fleetcast_catalog.images.domain import Hold, Image, ImageFormat, ImageName, ImageState, WimImage
from fleetcast_catalog.images.inspection.contents import ImageContents
from fleetcast_catalog.images.tables import ChunkTableRow, HoldRow, ImageRow, image_of


@dataclass(frozen=True)
class NewVersion:
    """What an import found, to be published."""

    digest: str
    size_bytes: int
    table: ChunkTable
    added_bytes: int
    format: ImageFormat
    wim_images: tuple[WimImage, ...]
    contents: ImageContents


class ImageStore:
    """Image versions in the database. Rules that read and then write hold `deciding`: one catalog, one store."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.deciding = asyncio.Lock()
        """The lock for everything that reads and then writes images, or what needs images."""

    async def add_importing(self, image: Image, request_id: str) -> Image:
        """Adds a CREATING version and returns it with its id."""
        row = ImageRow(
            image=image.image,
            version=image.version,
            state=ImageState.CREATING,
            format=image.format,
            source_file=image.source_file,
            owner=image.owner,
            request_id=request_id,
            create_time=image.create_time,
            chunk_size_bytes=image.chunk_size_bytes,
        )
        async with self.deciding, self._database.session() as session:
            session.add(row)
            await session.flush()
        return image_of(row)

    async def publish(self, importing: Image, new: NewVersion, now: datetime) -> Image:
        """Turns a CREATING version into the READY one with this content, in one transaction.

        If the series has that content already it is that version which becomes READY, and the CREATING one disappears.
        """
        packed = await asyncio.to_thread(new.table.pack)
        async with self.deciding, self._database.session() as session:
            row = await session.get_one(ImageRow, importing.id)
            # Even one whose deletion failed half-way: all of its chunks are there again.
            known = select(ImageRow).where(col(ImageRow.image) == importing.image, col(ImageRow.version) == new.digest)
            same = (await session.exec(known)).first()
            if same is not None:
                await session.delete(row)
                row = same
            else:
                row.version = new.digest
                row.format = new.format
                row.size_bytes = new.size_bytes
                row.chunk_count = len(new.table)
                row.zero_chunk_count = int(new.table.zero.sum())
                row.added_bytes = new.added_bytes
                row.wim_images = json.dumps([asdict(image) for image in new.wim_images])
            row.contents = json.dumps(new.contents.plain())
            if row.state != ImageState.READY:
                row.state, row.ready_time, row.damaged_chunk_count = ImageState.READY, now, 0
            row.stored_bytes = new.table.distinct_stored_bytes
            session.add(row)
            image = await _with_holders(session, row)
            await _put_table(session, image, packed)
            return image

    async def remove(self, image: Image) -> None:
        """Removes a version, whatever its state."""
        async with self.deciding, self._database.session() as session:
            await _remove(session, image.id)

    async def get(self, name: ImageName) -> Image:
        """Returns a version; without a digest the newest READY one.

        Raises:
            NotFoundError: there is none.
        """
        async with self._database.session(reads_only=True) as session:
            return await _with_holders(session, await _get(session, name))

    async def get_only(self, name: ImageName) -> Image:
        """Returns a version; without a digest the only one of the series.

        Raises:
            NotFoundError: there is none.
            FailedPreconditionError: there are several.
        """
        async with self._database.session(reads_only=True) as session:
            if not name.version:
                rows = (await session.exec(_visible().where(col(ImageRow.image) == name.image).limit(2))).all()
                if len(rows) > 1:
                    raise FailedPreconditionError(
                        f"image {name.image} has several versions: say which one, as NAME@sha256:DIGEST",
                        reason="IMAGE_AMBIGUOUS",
                    )
                name = ImageName(name.image, rows[0].version) if rows else name
            return await _with_holders(session, await _get(session, name))

    async def not_looked_into(self) -> list[Image]:
        """Returns the READY versions of which nobody knows what is inside."""
        async with self._database.session(reads_only=True) as session:
            query = _visible().where(col(ImageRow.state) == ImageState.READY, col(ImageRow.contents).is_(None))
            return [image_of(row) for row in (await session.exec(query)).all()]

    async def set_contents(self, image: Image, contents: ImageContents) -> None:
        """Records what is inside a version, if it is still there."""
        async with self.deciding, self._database.session() as session:
            row = await session.get(ImageRow, image.id)
            if row is not None:
                row.contents = json.dumps(contents.plain())
                session.add(row)

    async def ready_by_request(self, request_id: str, image: str) -> Image | None:
        """Returns the READY version that the import with `request_id` made, if it has finished."""
        async with self._database.session(reads_only=True) as session:
            query = _visible().where(col(ImageRow.request_id) == request_id, col(ImageRow.image) == image)
            row = (await session.exec(query.where(col(ImageRow.state) == ImageState.READY).limit(1))).first()
            return await _with_holders(session, row) if row else None

    async def page(self, image: str, before_id: int | None, limit: int) -> list[Image]:
        """Returns up to `limit` versions, newest first, of the series `image` if it is not empty."""
        query = _visible().order_by(col(ImageRow.id).desc()).limit(limit)
        if image:
            query = query.where(col(ImageRow.image) == image)
        if before_id is not None:
            query = query.where(col(ImageRow.id) < before_id)
        async with self._database.session(reads_only=True) as session:
            rows = (await session.exec(query)).all()
            holders = await _holders(session, [row.id for row in rows])
            return [image_of(row, holders.get(row.id, ())) for row in rows]

    async def in_states(self, *states: ImageState) -> list[Image]:
        """Returns all versions in the given states, invisible ones too."""
        async with self._database.session(reads_only=True) as session:
            rows = (await session.exec(select(ImageRow).where(col(ImageRow.state).in_(states)))).all()
            return [image_of(row) for row in rows]

    async def table(self, image: Image) -> ChunkTable:
        """Returns the chunk table of a version.

        Raises:
            NotFoundError: the version has been deleted.
        """
        async with self._database.session(reads_only=True) as session:
            row = await session.get(ChunkTableRow, image.id)
        if row is None:
            raise NotFoundError(f"{image.name} has been deleted", reason="IMAGE_NOT_FOUND")
        return await asyncio.to_thread(ChunkTable.unpack, row.packed)

    async def tables_in_use(self) -> AsyncIterator[ChunkTable]:
        """Yields the chunk tables of all READY and FAILED versions, one at a time."""
        for image in await self.in_states(ImageState.READY, ImageState.FAILED):
            yield await self.table(image)

    async def set_verified(self, image: Image, table: ChunkTable) -> Image:
        """Records the outcome of a verification of `image`, whose chunks are now stored as `table` says.

        Raises:
            NotFoundError: the version has been deleted meanwhile.
        """
        packed = await asyncio.to_thread(table.pack)
        async with self.deciding, self._database.session() as session:
            row = await _get(session, ImageName(image.image, image.version))
            row.state, row.verify_time = image.state, image.verify_time
            row.damaged_chunk_count = image.damaged_chunk_count
            row.stored_bytes = table.distinct_stored_bytes
            session.add(row)
            verified = await _with_holders(session, row)
            await _put_table(session, verified, packed)
            return verified

    async def start_deletion(self, image: Image) -> None:
        """Makes a version invisible, if nobody needs it.

        Raises:
            NotFoundError: it is gone.
            FailedPreconditionError: somebody needs it.
        """
        async with self.deciding, self._database.session() as session:
            row = await _get(session, ImageName(image.image, image.version))
            (await _with_holders(session, row)).check_deletable()
            row.state = ImageState.DELETING
            session.add(row)

    async def finish_deletion(self, image: Image, request_id: str, reclaimed_bytes: int, now: datetime) -> None:
        """Removes a version whose chunks are gone, and remembers what that gave back."""
        async with self.deciding, self._database.session() as session:
            await _remove(session, image.id)
            await remember_deletion(session, request_id, reclaimed_bytes, now)

    async def reclaimed_by_request(self, request_id: str) -> int | None:
        """Returns what the deletion with `request_id` gave back, if it was carried out."""
        async with self._database.session(reads_only=True) as session:
            return await reclaimed_by(session, request_id)

    async def hold(self, name: ImageName, holder: str) -> Image:
        """Records that `holder` needs a version, and returns it with that holder alone. Holding twice is holding once.

        The other holders are not read: thousands of sessions may hold one version, and each of them comes here.

        Raises:
            NotFoundError: there is no such version.
            FailedPreconditionError: it is not READY.
        """
        async with self.deciding, self._database.session() as session:
            row = await _get(session, name)
            image = image_of(row, [holder])
            if await session.get(HoldRow, (image.id, holder)) is None:
                image.check_deployable()
                session.add(HoldRow(image_id=image.id, holder=holder))
            return image

    async def release(self, name: ImageName, holder: str) -> None:
        """Removes a hold, if it is there."""
        async with self.deciding, self._database.session() as session:
            row = await _find(session, name)
            if row is not None:
                query = delete(HoldRow).where(col(HoldRow.image_id) == row.id, col(HoldRow.holder) == holder)
                await session.exec(query)

    async def holds(self, holder_prefix: str) -> list[Hold]:
        """Returns the holds whose holder starts with `holder_prefix`."""
        async with self._database.session(reads_only=True) as session:
            query = (
                select(ImageRow, HoldRow)
                .where(ImageRow.id == HoldRow.image_id)
                .where(col(HoldRow.holder).startswith(holder_prefix, autoescape=True))
                .order_by(col(HoldRow.holder), col(ImageRow.id))
            )
            return [Hold(image_of(row).name, hold.holder) for row, hold in (await session.exec(query)).all()]


async def deployable_image(session: AsyncSession, name: ImageName) -> Image:
    """Returns a version that somebody may start to depend on, as seen by the transaction of `session`.

    Raises:
        NotFoundError: there is no such version.
        FailedPreconditionError: it is not READY.
    """
    image = await _with_holders(session, await _get(session, name))
    image.check_deployable()
    return image


def _visible() -> Any:
    return select(ImageRow).where(col(ImageRow.state) != ImageState.DELETING)


async def _find(session: AsyncSession, name: ImageName) -> ImageRow | None:
    query = _visible().where(col(ImageRow.image) == name.image)
    if name.version:
        query = query.where(col(ImageRow.version) == name.version)
    else:
        query = query.where(col(ImageRow.state) == ImageState.READY).order_by(col(ImageRow.id).desc())
    row: ImageRow | None = (await session.exec(query.limit(1))).first()
    return row


async def _get(session: AsyncSession, name: ImageName) -> ImageRow:
    row = await _find(session, name)
    if row is not None:
        return row
    others = (await session.exec(_visible().where(col(ImageRow.image) == name.image).limit(1))).first()
    if others is None:
        problem = f"there is no image {name.image}"
    elif name.version:
        problem = f"image {name.image} has no version {name.version}"
    else:
        problem = f"image {name.image} has no version that is ready"
    raise NotFoundError(
        f"{problem}: `fleetcast image list` shows what there is",
        reason="IMAGE_NOT_FOUND",
        metadata={"name": str(name)},
    )


async def _holders(session: AsyncSession, image_ids: Iterable[int | None]) -> dict[int | None, list[str]]:
    holders: dict[int | None, list[str]] = {}
    query = select(HoldRow).where(col(HoldRow.image_id).in_(image_ids)).order_by(col(HoldRow.holder))
    for row in (await session.exec(query)).all():
        holders.setdefault(row.image_id, []).append(row.holder)
    return holders


async def _with_holders(session: AsyncSession, row: ImageRow) -> Image:
    return image_of(row, (await _holders(session, [row.id])).get(row.id, ()))


async def _put_table(session: AsyncSession, image: Image, packed: bytes) -> None:
    await session.merge(ChunkTableRow(image_id=image.id, packed=packed))


async def _remove(session: AsyncSession, image_id: int) -> None:
    await session.exec(delete(ChunkTableRow).where(col(ChunkTableRow.image_id) == image_id))
    await session.exec(delete(ImageRow).where(col(ImageRow.id) == image_id))
