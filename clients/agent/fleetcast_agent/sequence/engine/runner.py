"""Runs a task sequence: asks the engine what is next, does it, and notes it in the journal."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import shutil
import time
from pathlib import Path
from typing import Any

from fleetcast_kit.errors import FleetcastError
from fleetcast_kit.process import semconv
from fleetcast_sequence import (
    ExpressionError,
    Step,
    TaskSequence,
    VariableError,
    Variables,
    digest,
    step_types,
)
from opentelemetry import trace
from opentelemetry.trace import StatusCode
from pydantic import ValidationError

from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.control import Control
from fleetcast_agent.sequence.disks import carrying
from fleetcast_agent.sequence.engine.interface import RunResources, SequenceOutcome, SequenceProgress
from fleetcast_agent.sequence.engine.records import (
    Ended,
    Evaluated,
    NodeId,
    Outcome,
    Record,
    Remark,
    Remarked,
    Restarted,
    Started,
    StepEnded,
    StepInterrupted,
    StepSaved,
    StepStarted,
)
from fleetcast_agent.sequence.engine.remarks import new_remark
from fleetcast_agent.sequence.engine.run_journal import RunJournal
from fleetcast_agent.sequence.engine.runlog import RunLog, printable
from fleetcast_agent.sequence.engine.state import Engine, Evaluate, Finish, Restart, RunState, RunStep, replay
from fleetcast_agent.sequence.engine.timeout import unpaused_timeout
from fleetcast_agent.sequence.errors import RunJournalError, StepError, first_problem
from fleetcast_agent.sequence.tools import Tools

_logger = logging.getLogger(__name__)


class SequenceRunner:
    """One run of one task sequence in one directory, which holds its `journal` and its `log.txt`."""

    def __init__(
        self, sequence: TaskSequence, variables: Variables, directory: Path, around: RunResources, control: Control
    ) -> None:
        """Takes the sequence with its children in their places, and makes the directory."""
        self._sequence = sequence
        self._variables = variables
        self._directory = directory
        self._around = around
        self._control = control
        self._engine = Engine(sequence, {name: item.on_interruption for name, item in step_types().items()})
        self._log = RunLog(directory / "log.txt")
        self._tracer = trace.get_tracer("fleetcast_agent.sequence")
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def run(self) -> SequenceOutcome:
        """Runs what is left of the sequence. Returns when it ended, or when the machine must restart.

        Cancelling this leaves the running step interrupted, as a power cut would.

        Raises:
            RunJournalError: the directory holds a damaged journal, or one of another sequence.
            VariableError: a required variable has no value.
        """
        journal = RunJournal(self._directory / "journal")
        try:
            with self._tracer.start_as_current_span(f"task sequence {self._sequence.name}") as span:
                span.set_attribute(semconv.TASK_SEQUENCE, self._sequence.name)
                outcome = await self._run(journal)
                span.set_attribute(semconv.OUTCOME, outcome.outcome or "restarting")
                if outcome.outcome is Outcome.FAILED:
                    span.set_status(StatusCode.ERROR, outcome.message)
                return outcome
        finally:
            journal.close()

    async def _run(self, journal: RunJournal) -> SequenceOutcome:
        state = replay(journal.records)
        await self._open(journal, state)
        while True:
            await self._control.go()
            command = self._engine.next(state)
            if self._control.cancelled.is_set() and not isinstance(command, Finish):
                command = Finish(Outcome.CANCELLED, message=self._control.reason)
            match command:
                case Evaluate():
                    await self._note(journal, state, self._evaluate(command, state))
                case RunStep():
                    await self._step(command, journal, state)
                case Restart():
                    outcome = await self._restart(command.request, journal, state)
                    if outcome is not None:
                        return outcome
                case Finish():
                    if state.ended is None:
                        ended = Ended(outcome=command.outcome, node=command.node, message=command.message)
                        await self._note(journal, state, ended)
                    return self._outcome(command, state)

    async def _open(self, journal: RunJournal, state: RunState) -> None:
        """Brings a journal that another life of the agent left up to now."""
        identity = digest(self._sequence)
        if not state.digest:
            if missing := self._variables.missing():
                raise VariableError(f"these variables need a value: {', '.join(missing)}")
            await self._note(journal, state, Started(digest=identity))
        elif state.digest != identity:
            raise RunJournalError(
                f"{self._directory} holds the run of another task sequence ({state.digest}, not {identity})"
            )
        self._variables.set(state.variables)
        self._variables.context |= {
            "machine": await self._around.gather(),
            "environment": self._around.environment,
            "last": self._last(state),
        }
        self._variables.context.setdefault("deployment", {})
        self._log.begin(self._variables.secrets())
        if state.restart is not None and state.restart.boot_id != self._around.boot_id:
            await self._note(journal, state, Restarted())
        if (interrupted := state.running) is not None:
            self._log(f"was interrupted in {self._engine.nodes[interrupted].name!r}")
            await self._note(journal, state, StepInterrupted(node=interrupted))
            await asyncio.to_thread(self._around.disks.clean_up, self._directory)

    async def _note(self, journal: RunJournal, state: RunState, record: Record) -> None:
        record = record.model_copy(update={"time": time.time()})
        await asyncio.to_thread(journal.append, record)
        state.apply(record)
        self._around.noted(record)

    def _remark(self, node: NodeId, sentence: str, journal: RunJournal, state: RunState) -> None:
        text = new_remark(state, node, printable(self._log.hide(sentence)))
        if not text:
            return
        self._log(f"remark: {text}")
        record = Remarked(node=node, text=text, time=time.time())
        journal.append(record)
        state.apply(record)
        self._around.noted(record)

    def _evaluate(self, command: Evaluate, state: RunState) -> Evaluated:
        try:
            holds = self._variables.holds(command.condition)
        except (ExpressionError, VariableError) as error:
            problem = self._log.hide(error.message)
            self._log(f"the condition of {self._engine.nodes[command.node].name!r} cannot be evaluated: {problem}")
            return Evaluated(node=command.node, holds=False, problem=problem)
        if not holds:
            self._log(f"{self._engine.nodes[command.node].name!r} is skipped: {command.condition}")
        return Evaluated(node=command.node, holds=holds)

    async def _step(self, command: RunStep, journal: RunJournal, state: RunState) -> None:
        if command.delay_seconds:
            self._log(f"tries {command.step.name!r} again in {command.delay_seconds:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._control.cancelled.wait(), command.delay_seconds)
                return
        await self._control.go()
        if self._control.cancelled.is_set():
            return
        await self._note(journal, state, StepStarted(node=command.node, attempt=command.attempt))
        self._log.begin(self._variables.secrets())
        self._log(f"begins {command.step.name!r} ({command.step.type}), attempt {command.attempt}")
        self._report(command.node, 0)
        with self._tracer.start_as_current_span(f"step {command.step.name}") as span:
            span.set_attribute(semconv.STEP, command.step.name)
            span.set_attribute(semconv.STEP_TYPE, command.step.type)
            span.set_attribute(semconv.ATTEMPT, command.attempt)
            begun = time.monotonic()
            ended = await self._attempt(command, journal, state)
            span.set_attribute(semconv.OUTCOME, ended.outcome)
            if ended.outcome is Outcome.FAILED:
                span.set_status(StatusCode.ERROR, ended.message)
        self._log(
            f"{command.step.name!r} {ended.outcome} after {time.monotonic() - begun:.1f} s"
            + (f": {ended.message}" if ended.message else "")
        )
        await self._note(journal, state, ended)
        self._variables.set(ended.variables)
        self._log.hide.add(self._variables.secrets())
        self._variables.context["last"] = self._last(state)
        self._report(command.node, 1)
        shutil.rmtree(self._step_directory(command.node), ignore_errors=True)

    async def _attempt(self, command: RunStep, journal: RunJournal, state: RunState) -> StepEnded:
        """Runs one attempt of a step; whatever it does, it has ended in one way when this returns."""
        context = self._context(command, journal, state)

        def ended(outcome: Outcome, message: str = "", exit_code: int | None = None) -> StepEnded:
            tail = self._log.tail
            return StepEnded(
                node=command.node,
                outcome=outcome,
                message=printable(self._log.hide(message)),
                exit_code=exit_code,
                output_tail=tail,
            )

        work = asyncio.ensure_future(self._call(command, context))
        cancelled = asyncio.ensure_future(self._control.cancelled.wait())
        try:
            with unpaused_timeout(work, command.step.timeout, self._control) as timer:
                await asyncio.wait([work, cancelled], return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
                await asyncio.wait([work])
                return ended(Outcome.CANCELLED, self._control.reason)
            if work.cancelled():
                limit = command.step.timeout or 0
                return ended(Outcome.FAILED, f"it did not end within {limit:g} s" if timer.expired else "it was ended")
            work.result()
        except FleetcastError as error:
            return ended(Outcome.FAILED, error.message, error.exit_code if isinstance(error, StepError) else None)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            return ended(Outcome.FAILED, f"{where}{error.strerror or repr(error)}")
        except asyncio.CancelledError:
            work.cancel()
            await asyncio.wait([work])
            raise
        except Exception as error:
            _logger.exception("step %s failed in a way nobody expected", command.step.name)
            return ended(Outcome.FAILED, f"a defect of the step: {type(error).__name__}: {error}")
        finally:
            cancelled.cancel()
        results = context.results
        restart = results.restart
        return ended(Outcome.SUCCEEDED, exit_code=results.exit_code).model_copy(
            update={
                "variables": results.variables,
                "volumes": results.volumes,
                "restart": restart.target if restart else None,
                "rerun": bool(restart and restart.rerun),
                "carry_state_to": restart.carry_state_to if restart else None,
                "boot_id": self._around.boot_id if restart else "",
            }
        )

    async def _call(self, command: RunStep, context: StepContext) -> None:
        step_type = step_types().get(command.step.type)
        function = self._around.steps.get(command.step.type)
        if step_type is None or function is None:
            raise StepError(f"this agent cannot run steps of the type {command.step.type!r}")
        try:
            arguments = step_type.arguments.model_validate(self._variables.render(command.step.arguments))
        except ValidationError as error:
            raise StepError(first_problem(error)) from error
        await function(arguments, context)

    def _context(self, command: RunStep, journal: RunJournal, state: RunState) -> StepContext:
        async def save(checkpoint: dict[str, Any]) -> None:
            await self._note(journal, state, StepSaved(node=command.node, checkpoint=checkpoint))

        def remark(sentence: str) -> None:
            self._remark(command.node, sentence, journal, state)

        async def gather() -> dict[str, Any]:
            machine = await self._around.gather()
            self._variables.context["machine"] = machine
            return machine

        directory = self._step_directory(command.node)
        if not command.resume:
            shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return StepContext(
            run_directory=self._directory,
            step_directory=directory,
            tools=Tools(self._control, self._log, remark),
            control=self._control,
            disks=self._around.disks,
            content=self._around.content,
            variables=self._variables,
            environment=self._around.environment,
            log=self._log,
            progress=lambda fraction: self._report(command.node, fraction),
            save=save,
            volumes=state.volumes,
            gather=gather,
            remark=remark,
            resume=command.resume,
            checkpoint=command.checkpoint,
        )

    async def _restart(self, request: StepEnded, journal: RunJournal, state: RunState) -> SequenceOutcome | None:
        """Returns the outcome that asks for the restart; None when its preparation failed, which fails the step."""
        target = request.restart or "installed"
        step = self._engine.nodes[request.node]
        if request.carry_state_to is not None and isinstance(step, Step):
            try:
                context = self._context(RunStep(request.node, step, 1), journal, state)
                await carrying.carry(context, request.carry_state_to, self._around.identity)
            except (FleetcastError, OSError) as error:
                message = f"the progress could not be carried over: {error}"
                await self._note(
                    journal,
                    state,
                    StepEnded(node=request.node, outcome=Outcome.FAILED, message=self._log.hide(message)),
                )
                return None
        self._log(f"restarts to {'the boot environment' if target == 'boot' else 'the installed system'}")
        after = copy.deepcopy(state)
        after.apply(Restarted())
        final = isinstance(self._engine.next(after), Finish)
        return SequenceOutcome(None, restart=target, final=final, remarks=self._remarks(state))

    def _outcome(self, command: Finish, state: RunState) -> SequenceOutcome:
        name = self._engine.nodes[command.node].name if command.node in self._engine.nodes else ""
        ended = state.steps[command.node].ended if command.node in state.steps else None
        remarks = self._remarks(state)
        said = f" with {len(remarks)} remarks" if remarks else ""
        self._log(f"the task sequence {command.outcome}{said}" + (f" in {name!r}: {command.message}" if name else ""))
        return SequenceOutcome(
            command.outcome,
            step=name,
            message=command.message,
            output_tail=ended.output_tail if ended else "",
            remarks=remarks,
        )

    def _remarks(self, state: RunState) -> tuple[Remark, ...]:
        names = {node: self._log.hide(item.name) for node, item in self._engine.nodes.items()}
        return tuple(Remark(step=names.get(one.node, one.node), text=one.text) for one in state.remarks)

    def _last(self, state: RunState) -> dict[str, Any]:
        last = state.last
        return {
            "name": self._engine.nodes[last.node].name if last else "",
            "succeeded": last is None or last.outcome is Outcome.SUCCEEDED,
            "exit_code": last.exit_code or 0 if last else 0,
            "message": last.message if last else "",
        }

    def _report(self, node: NodeId, fraction: float) -> None:
        done = self._engine.step_ids.index(node)
        count = len(self._engine.step_ids)
        fraction = min(max(fraction, 0.0), 1.0)
        name = self._log.hide(self._engine.nodes[node].name)
        self._around.report(SequenceProgress(done + 1, count, name, fraction, (done + fraction) / count))

    def _step_directory(self, node: NodeId) -> Path:
        return self._directory / "steps" / node
