"""The agent on a machine: waits for a deployment, runs it, and goes on with what was begun after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from functools import partial
from typing import Protocol

from fleetcast_kit.errors import FleetcastError

from fleetcast_agent.deployments import convert
from fleetcast_agent.deployments.convert import Word
from fleetcast_agent.deployments.executing import Execution, LocalMachine
from fleetcast_agent.deployments.kept_runs import KeptRun, KeptRuns
from fleetcast_agent.deployments.orders import (
    Arrival,
    ControlAction,
    Environment,
    RunClosed,
    RunControl,
    RunEnd,
    RunOrder,
    RunProgress,
    Standby,
)
from fleetcast_agent.deployments.registering import MachineDescription, describe
from fleetcast_agent.deployments.scheduler_stream import SchedulerStream
from fleetcast_agent.sequence.engine.records import Outcome

ANY_DEPLOYMENT = "any"
"""Accepts every available deployment, one after the other."""
_FAREWELL_SECONDS = 5.0
"""How long a machine that restarts waits for the scheduler to know."""


class RunDisplay(Protocol):
    """Shows what the agent does."""

    def registered(self, machine: str) -> None:
        """The machine takes part."""

    def waiting(self, standby: Standby) -> None:
        """There is nothing to run now."""

    def ordered(self, order: RunOrder, *, again: bool) -> None:
        """A run begins, or goes on."""

    def progressed(self, progress: RunProgress) -> None:
        """A run has made progress."""

    def controlled(self, control: RunControl) -> None:
        """An operator pauses, resumes or cancels the run."""

    def restarting(self, environment: Environment) -> None:
        """The machine restarts."""

    def ended(self, order: RunOrder, end: RunEnd) -> None:
        """A run has ended, and the scheduler knows."""

    def noticed(self, sentence: str) -> None:
        """Something that a person may want to know."""


class Agent:
    """Keeps the stream to the scheduler open, and runs one deployment at a time."""

    def __init__(
        self, local: LocalMachine, display: RunDisplay, *, accepted: Collection[str] = (), once: bool = False
    ) -> None:
        """Takes the available deployments to ask for, and whether to end after one run."""
        self._local = local
        self._display = display
        self._accepted = frozenset(accepted)
        self._once = once
        self._runs = KeptRuns(local.state_dir)
        self._kept: KeptRun | None = None
        self._execution: Execution | None = None
        self._next_order: RunOrder | None = None
        self._wanted: set[str] = set()
        self._described: MachineDescription | None = None
        self._stream: SchedulerStream | None = None

    async def run(self, stop: asyncio.Event) -> RunEnd | None:
        """Returns the end of the first run, when it is to return then; None once `stop` is set.

        Raises:
            FleetcastError: this machine may not take part; the sentence says what to do.
        """
        self._kept = await asyncio.to_thread(self._runs.unfinished)
        self._stream = SchedulerStream(
            self._local.server,
            self._local.state_dir,
            describe=self._describe,
            arrival=self._arrival,
            notice=self._display.noticed,
            registered=self._registered,
            held_seconds=self._local.held_seconds,
        )
        stopping = asyncio.create_task(stop.wait())
        word = asyncio.create_task(self._stream.next())
        try:
            if self._kept is not None:
                await self._go_on(self._kept)
            while True:
                running = {self._execution.task} if self._execution is not None else set()
                await asyncio.wait({stopping, word, *running}, return_when=asyncio.FIRST_COMPLETED)
                if stopping.done():
                    return None
                if self._execution is not None and self._execution.task.done():
                    await self._executed(self._execution)
                if word.done():
                    end = await self._take(word.result())
                    if end is not None and self._once:
                        return end
                    word = asyncio.create_task(self._stream.next())
        finally:
            for task in (stopping, word):
                task.cancel()
            await asyncio.gather(stopping, word, return_exceptions=True)
            if self._execution is not None:
                await self._execution.stop()
            await self._stream.close()

    def _describe(self) -> MachineDescription:
        self._described = describe(self._local.hardware.gather(), self._local.display_name)
        return self._described

    def _registered(self, machine: str) -> None:
        """The scheduler takes this machine for what its identity says: the state directory is its own."""
        if self._described is not None:
            self._local.own_hardware.keep(self._described)
        self._display.registered(machine)

    def _arrival(self) -> Arrival:
        run = self._kept.order.run if self._kept is not None and not self._kept.closed else ""
        return Arrival(run, self._local.starter.environment)

    # What the scheduler says.

    async def _take(self, word: Word) -> RunEnd | None:
        """Acts on what the scheduler says; returns the end of a run that is over with it."""
        match word:
            case Standby():
                if (kept := self._told_completely()) is not None:
                    return await self._close(kept)
                self._display.waiting(word)
                self._want(word)
            case RunOrder():
                await self._obey(word)
            case RunControl():
                self._apply(word)
            case RunClosed(run):
                if self._kept is not None and run == self._kept.order.run:
                    return await self._close(self._kept)
        return None

    def _told_completely(self) -> KeptRun | None:
        """Returns the run whose end the scheduler knows for certain, even if its word of that was lost."""
        if self._kept is None or self._kept.end is None or self._execution is not None:
            return None
        return self._kept if self._stream is not None and self._stream.all_known else None

    def _want(self, standby: Standby) -> None:
        if self._kept is not None or self._stream is None:
            return
        for offered in standby.offered:
            names = {ANY_DEPLOYMENT, offered.name, offered.name.removeprefix("deployments/")}
            if names & self._accepted and offered.name not in self._wanted:
                self._wanted.add(offered.name)
                self._stream.tell(partial(convert.wanted_message, offered.name))
                return

    async def _obey(self, order: RunOrder) -> None:
        if self._kept is not None and self._kept.order.is_same_as(order):
            return  # it runs, or its end is told until the scheduler knows
        if self._kept is None:
            await self._begin(order)
        elif self._kept.end is not None:  # the scheduler has gone on: it knew of the end before this machine heard so
            await self._close(self._kept)
            await self._begin(order)
        else:
            self._next_order = order
            if self._execution is not None:
                self._execution.control.cancel("the scheduler ordered another run")

    def _apply(self, control: RunControl) -> None:
        execution = self._execution
        if self._stream is None:
            return
        if self._kept is None:
            if control.action is ControlAction.CANCEL:  # this machine lost it: nothing of it will run here
                end = RunEnd(outcome=Outcome.CANCELLED, error=control.reason or "cancelled")
                self._stream.tell(partial(convert.outcome_message, control.run, end))
            return
        if control.run != self._kept.order.run or self._kept.end is not None:
            return
        self._display.controlled(control)
        if execution is None:
            if control.action is ControlAction.CANCEL:
                self._cancel(self._kept, control.reason)
            return
        match control.action:
            case ControlAction.PAUSE:
                execution.control.pause()
            case ControlAction.RESUME:
                execution.control.resume()
            case ControlAction.CANCEL:
                execution.control.cancel(control.reason or "cancelled")

    # What runs.

    async def _begin(self, order: RunOrder) -> None:
        self._kept = await asyncio.to_thread(self._runs.begin, order)
        self._display.ordered(order, again=False)
        self._execute(self._kept)

    async def _go_on(self, kept: KeptRun) -> None:
        """Goes on with what another life of the agent left."""
        if kept.closed:
            await self._close(kept)
            return
        self._display.ordered(kept.order, again=True)
        self._execute(kept)

    def _execute(self, kept: KeptRun) -> None:
        if self._stream is None:
            return
        self._execution = Execution(
            kept,
            self._local,
            self._stream,
            noticed=self._display.noticed,
            progressed=self._display.progressed,
        )

    async def _executed(self, execution: Execution) -> None:
        """Acts on the end of an execution: nothing is left but to hear that the scheduler knows, or to restart."""
        self._execution = None
        restart = execution.task.result()
        if self._next_order is not None:
            order, self._next_order = self._next_order, None
            await self._close(execution.kept)
            await self._begin(order)
        elif restart is not None and execution.control.cancelled.is_set():
            self._cancel(execution.kept, execution.control.reason)
        elif restart is not None:
            await self._restart_for(execution.kept, restart)

    def _cancel(self, kept: KeptRun, reason: str) -> None:
        """Ends a run that waits for a restart."""
        kept.conclude(RunEnd(outcome=Outcome.CANCELLED, error=reason or "cancelled"))
        self._execute(kept)

    async def _restart_for(self, kept: KeptRun, environment: Environment) -> None:
        """Restarts the machine in the middle of a run."""
        if self._stream is not None:
            self._stream.tell(partial(convert.restarting_message, environment))
            await self._stream.known(_FAREWELL_SECONDS)
        if await self._restart(environment):
            self._execute(kept)

    async def _restart(self, environment: Environment) -> bool:
        """Restarts the machine; returns whether this process goes on as part of one that has started anew."""
        self._display.restarting(environment)
        try:
            goes_on = await self._local.starter.restart(environment)
        except (FleetcastError, OSError, TimeoutError) as error:
            self._display.noticed(str(error) or "the machine does not restart: restart it by hand")
            return False
        if goes_on and self._stream is not None:
            self._stream.reopen()
        return goes_on

    async def _close(self, kept: KeptRun) -> RunEnd | None:
        """Puts away a run that the scheduler has ended; returns how it ended here, if it did."""
        if self._execution is not None:
            execution, self._execution = self._execution, None
            await execution.stop()
        if self._stream is not None:
            self._stream.forget()
        self._kept = None
        end = kept.end
        if end is not None:
            self._display.ended(kept.order, end)
            if end.restart is not None and end.boot_id == self._local.starter.boot_id:
                await asyncio.to_thread(kept.close)
                if not await self._restart(end.restart):
                    return end  # what is left of it goes when the machine has started anew
        await asyncio.to_thread(self._runs.archive, kept)
        return end
