"""What operators and machines do with sessions: the image is held, the rules decide, the decision is stored."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace

from fleetcast_kit.errors import FailedPreconditionError, NotFoundError, PermissionDeniedError
from fleetcast_kit.process import semconv, telemetry

from fleetcast_scheduler.audit.audit import Audit
from fleetcast_scheduler.catalog import Catalog
from fleetcast_scheduler.images import Medium, PinnedImage, unfit_for
from fleetcast_scheduler.loop.locks import Locks
from fleetcast_scheduler.loop.watching import RevisionWatch
from fleetcast_scheduler.machines.domain.machine import Inventory
from fleetcast_scheduler.names import new_name
from fleetcast_scheduler.senders.domain.policies import RatePolicy, SlowPolicy
from fleetcast_scheduler.senders.domain.transmission import Transmission
from fleetcast_scheduler.sessions.domain.admission import AdmissionRules
from fleetcast_scheduler.sessions.domain.operations import SessionEdit, begin_series
from fleetcast_scheduler.sessions.domain.participant import Joiner, Participant
from fleetcast_scheduler.sessions.domain.session import Session, SessionMode
from fleetcast_scheduler.sessions.domain.start_rules import StartRules
from fleetcast_scheduler.sessions.holds import SessionHolds
from fleetcast_scheduler.sessions.mailbox import SessionMailbox
from fleetcast_scheduler.sessions.pump import Pump
from fleetcast_scheduler.sessions.store import Store

_logger = logging.getLogger(__name__)
_tracer = telemetry.tracer(__name__)


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session as it is now, and the participants that a reader has not seen."""

    session: Session
    transmission: Transmission | None
    participants: list[Participant]
    lost: bool = False


class Sessions:
    """Sessions, open and ended."""

    def __init__(
        self,
        pump: Pump,
        store: Store,
        catalog: Catalog,
        holds: SessionHolds,
        audit: Audit,
        *,
        admit: Callable[[str], str],
        require_same_hardware: Callable[[str, str, Inventory, Iterable[Inventory]], Awaitable[None]],
        members: Callable[[str], Awaitable[dict[str, str]]],
    ) -> None:
        self._pump = pump
        self._store = store
        self._catalog = catalog
        self._holds = holds
        self._audit = audit
        self._admit = admit
        self._require_same_hardware = require_same_hardware
        self._members = members
        self._locks = Locks()

    # For operators

    async def create(self, image: str, edit: SessionEdit, request_id: str) -> Session:
        """Opens a session on an image, or returns the one that the same request opened before.

        Raises:
            NotFoundError: there is no such READY image, or no such collection.
            InvalidArgumentError: the recurrence cannot be.
        """
        async with self._locks.held(f"request {request_id or secrets.token_hex(8)}"):
            name = await self._store.find_request(request_id) if request_id else None
            if name is not None:
                return await self.get(name)
            session = await self._open(image, SessionMode.SCHEDULED, edit, request_id)
            self._audit.record("session.create", session.name, request_id, image=session.image)
            await self._pump.durable()
            return session

    async def get(self, name: str) -> Session:
        """Returns a session.

        Raises:
            NotFoundError: there is none of that name.
        """
        session = self._pump.dispatcher.ledger.sessions.get(name) or await self._store.find_session(name)
        if session is None:
            raise NotFoundError(
                f"there is no session {name.rpartition('/')[2]}: `fleetcast session list` shows what there is",
                reason="SESSION_NOT_FOUND",
            )
        return session

    async def list(self, after: tuple[float, str] | None, limit: int) -> list[Session]:
        """Returns sessions, newest first; the ended ones without participants."""
        stored = await self._store.list_sessions(after, limit)
        present = self._pump.dispatcher.ledger.sessions
        return [present.get(session.name, session) for session in stored]

    async def operate(
        self, name: str, action: str, request_id: str, act: Callable[[Session], object], **detail: object
    ) -> Session:
        """Carries out what an operator wants, once for each request id, and records it if it changed anything.

        Raises:
            NotFoundError: there is no session of that name.
        """
        async with self._locks.held(f"request {request_id or secrets.token_hex(8)}"):
            session = await self._recall(name)
            if await self._audit.recorded(request_id) is None:
                edit_count = session.edit_count
                act(session)
                if session.edit_count != edit_count:
                    self._audit.record(f"session.{action}", name, request_id, **detail)
            await self._pump.durable()
            return session

    async def transmission(self, session: Session) -> Transmission | None:
        """Returns the latest transmission of a session, or None."""
        latest = f"{session.name}/transmissions/{session.transmission_count}"
        present = self._pump.dispatcher.pool.transmissions.get(latest)
        if present is not None or not session.transmission_count:
            return present
        return await self._store.last_transmission(session.name)

    async def watch(self, name: str, after_revision: int) -> AsyncIterator[SessionView]:
        """Yields a session and what changed since `after_revision`, then each change; ends after the final state.

        Raises:
            NotFoundError: there is none of that name.
        """
        session = await self.get(name)
        watch = RevisionWatch(self._pump, name, revision=session.revision, after_revision=after_revision)

        async def look() -> SessionView | None:
            seen = watch.take(session.revision)
            if seen is None:
                return None
            participants = [one for one in session.participants.values() if one.revision > seen]
            return SessionView(session, await self.transmission(session), participants, watch.lost)

        def over() -> bool:
            return session.state.final and session.revision == watch.seen

        async with aclosing(watch.views(look, over)) as views:
            async for view in views:
                yield view

    # For machines

    async def join_session(self, name: str, joiner: Joiner) -> SessionMailbox:
        """A machine joins a session that it names.

        Raises:
            NotFoundError: there is none of that name.
            FailedPreconditionError: it has ended, the image does not fit, the machine is held, or it is not of the
                session's collection.
            PermissionDeniedError: the image is the user state of another machine.
        """
        joiner = await self._admitted(joiner)
        session = await self._recall(name)
        await self._look_for_member(session, joiner.machine)
        if not (session.deployment or session.collection or joiner.machine in session.participants):
            _check_owner(await self._catalog.resolve(session.image), joiner)
        if joiner.medium is not Medium.ANY:
            _check_medium(await self._catalog.resolve(session.image), joiner)
        return self._pump.join(name, joiner)

    async def join_image(self, image: str, joiner: Joiner) -> SessionMailbox:
        """A machine joins the open session for an image, or opens an automatic one.

        Raises:
            NotFoundError: there is no such READY image.
            FailedPreconditionError: the image does not fit, or the machine is held.
            PermissionDeniedError: it is the user state of another machine.
        """
        joiner = await self._admitted(joiner)
        if joiner.medium is not Medium.ANY:
            _check_medium(await self._catalog.resolve(image), joiner)
        find_open = self._pump.dispatcher.find_open
        session = find_open(joiner.machine, image)
        if session is None or joiner.machine not in session.participants:
            pinned = await self._catalog.resolve(image)
            for other in list(self._pump.dispatcher.ledger.sessions.values()):
                if other.image == pinned.name:
                    await self._look_for_member(other, joiner.machine)
            async with self._locks.held(pinned.name):
                session = find_open(joiner.machine, pinned.name)
                if session is None or not session.collection:
                    _check_owner(pinned, joiner)
                if session is None:
                    session = await self._open(pinned.name, SessionMode.AUTO, SessionEdit(), "")
        return self._pump.join(session.name, joiner)

    async def join_deployment(
        self,
        deployment: str,
        image: str,
        edit: SessionEdit,
        expected: dict[str, str],
        joiner: Joiner,
        *,
        traceparent: str,
    ) -> SessionMailbox:
        """A machine joins the open session of a deployment for a pinned image, or opens one as `edit` says.

        Raises:
            NotFoundError: there is no such READY image.
            FailedPreconditionError: the image does not fit, or the machine is held.
        """
        joiner = await self._admitted(joiner)
        async with self._locks.held(f"{deployment} {image}"):
            session = self._pump.dispatcher.find_deployed(joiner.machine, deployment, image)
            if session is None:
                session = await self._open(
                    image, SessionMode.AUTO, edit, deployment=deployment, traceparent=traceparent
                )
            self._pump.dispatcher.expect(session.name, expected)
        return self._pump.join(session.name, joiner)

    async def _open(
        self,
        image: str,
        mode: SessionMode,
        edit: SessionEdit,
        request_id: str = "",
        *,
        deployment: str = "",
        traceparent: str = "",
    ) -> Session:
        """Returns a new session, its image held and its trace begun, known to the dispatcher but not yet stored."""
        rules, admission = edit.rules or StartRules(), edit.admission or AdmissionRules()
        series = await asyncio.to_thread(begin_series, edit.recurrence or "", edit.time_zone or "", rules, admission)
        expected = await self._members(edit.collection or "")
        now = self._pump.clock()
        name = new_name("sessions", now)
        context = telemetry.context_from(traceparent) if traceparent else None
        span_attributes = {semconv.SESSION: name}
        with (
            _tracer.start_as_current_span("session", context, attributes=span_attributes) as span,
            self._holds.keeper.opens(name),
        ):
            pinned = await self._catalog.hold(image, name)
            span.set_attribute(semconv.IMAGE, pinned.name)
            session = Session(
                name=name,
                image=pinned.name,
                image_size_bytes=pinned.size_bytes,
                mode=mode,
                create_time=now,
                rules=rules,
                rate=edit.rate or RatePolicy(),
                admission=admission,
                priority=edit.priority or 0,
                slow_policy=edit.slow_policy or SlowPolicy(),
                site=edit.site or "",
                any_site=bool(edit.any_site),
                deployment=deployment,
                collection=edit.collection or "",
                expected=expected,
                series=series,
                traceparent=telemetry.current_traceparent(),
                request_id=request_id,
            )
            self._pump.dispatcher.add(session)
        self._pump.wake()
        _logger.info("%s opened for %s", name, pinned.name)
        return session

    async def resolve(self, image: str) -> PinnedImage:
        """Returns the version that `image` names now.

        Raises:
            NotFoundError: there is no such READY image.
        """
        return await self._catalog.resolve(image)

    async def _look_for_member(self, session: Session, machine: str) -> None:
        """Looks at the collection of a session again if a machine is not among those that were members lately."""
        if session.collection and not session.state.final and machine not in session.expected:
            with suppress(NotFoundError):  # no collection, no members
                self._pump.dispatcher.expect(session.name, await self._members(session.collection))

    async def _admitted(self, joiner: Joiner) -> Joiner:
        """Returns a machine that joins under the name that operators know it by; its own if they gave it none.

        Raises:
            FailedPreconditionError: an operator must approve it first.
        """
        display_name = self._admit(joiner.machine)
        live = self._pump.dispatcher.hardware_of(joiner.machine)
        await self._require_same_hardware(joiner.machine, joiner.display_name, joiner.hardware, live)
        return replace(joiner, display_name=display_name) if display_name else joiner

    async def _recall(self, name: str) -> Session:
        """Returns a session, known to the dispatcher even if it ended long ago.

        Raises:
            NotFoundError: there is none of that name.
        """
        session = await self.get(name)
        self._pump.dispatcher.recall(session)
        return session


def _check_owner(image: PinnedImage, joiner: Joiner) -> None:
    """Makes sure that the image is no user state of another machine.

    Raises:
        PermissionDeniedError: it is.
    """
    if image.owner not in ("", joiner.machine):
        raise PermissionDeniedError(
            f"{image.name} is the saved user state of {image.owner}: deploy a task sequence that restores it to "
            f"{joiner.machine}, or open a session for a collection with that machine",
            reason="IMAGE_OF_ANOTHER_MACHINE",
        )


def _check_medium(image: PinnedImage, joiner: Joiner) -> None:
    """Makes sure that the image is for what the machine writes to: a disk, or a volume.

    Raises:
        FailedPreconditionError: it is for the other one.
    """
    if problem := unfit_for(image, joiner.medium, joiner.medium_sector_size_bytes):
        raise FailedPreconditionError(
            f"{image.name} {problem}; add --as-is to write it all the same", reason="IMAGE_UNFIT"
        )
