"""How the agent's work looks: a few lines for people on standard error, or a JSON object a line on standard output."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from fleetcast_kit.values.printable import printable

from fleetcast_agent.deployments.orders import (
    ControlAction,
    Environment,
    RunControl,
    RunEnd,
    RunOrder,
    RunProgress,
    Standby,
)
from fleetcast_agent.sequence.engine.records import Outcome

_LINE_SECONDS = 10.0
"""How often a step that takes long says how far it is."""
_CONTROLLED = {
    ControlAction.PAUSE: "held by an operator",
    ControlAction.RESUME: "going on",
    ControlAction.CANCEL: "cancelled by an operator",
}


class PlainDisplay:
    """Sentences for people."""

    def __init__(self) -> None:
        self._standby: Standby | None = None
        self._step = (0, "")
        self._line_at = 0.0

    def registered(self, machine: str) -> None:
        """The machine takes part."""
        _say(f"registered as {machine}")

    def waiting(self, standby: Standby) -> None:
        """There is nothing to run now."""
        if standby == self._standby:
            return
        self._standby = standby
        _say(standby.reason or "nothing to run")
        for offered in standby.offered:
            name = offered.name.removeprefix("deployments/")
            _say(f"  offered: {name}  {offered.description}".rstrip() + f"  (run it with --accept {name})")

    def ordered(self, order: RunOrder, *, again: bool) -> None:
        """A run begins, or goes on."""
        self._standby, self._step = None, (0, "")
        what = f": {order.image.removeprefix('images/')}" if order.image else ""
        _say(f"{order.title} {'goes on' if again else 'begins'}{what}")

    def progressed(self, progress: RunProgress) -> None:
        """A run has made progress."""
        step, now = (progress.step, progress.step_name), time.monotonic()
        if not progress.step_count or (step == self._step and now - self._line_at < _LINE_SECONDS):
            return
        part = f" {progress.step_fraction:.0%}" if step == self._step else ""
        self._step, self._line_at = step, now
        _say(f"  step {progress.step} of {progress.step_count}: {progress.step_name}{part}")

    def controlled(self, control: RunControl) -> None:
        """An operator pauses, resumes or cancels the run."""
        _say(f"  {_CONTROLLED[control.action]}" + (f": {control.reason}" if control.reason else ""))

    def restarting(self, environment: Environment) -> None:
        """The machine restarts."""
        _say(f"restarting to {'the boot environment' if environment == 'boot' else 'the installed system'}")

    def ended(self, order: RunOrder, end: RunEnd) -> None:
        """A run has ended, and the scheduler knows."""
        place = f" in {end.step!r}" if end.step else ""
        reason = f": {end.error}" if end.error else ""
        said = " with remarks" if end.remarks else ""
        _say(f"{order.title} {end.outcome}{said}{place}{reason}")
        for remark in end.remarks:
            _say(f"  remark{f' of {remark.step!r}' if remark.step else ''}: {remark.text}")
        if end.outcome is Outcome.FAILED and end.output_tail:
            _say("\n".join(f"  | {line}" for line in end.output_tail.splitlines()))

    def noticed(self, sentence: str) -> None:
        """Something that a person may want to know."""
        _say(sentence)


class JsonDisplay:
    """JSON objects; `event` says what each is about."""

    def registered(self, machine: str) -> None:
        """The machine takes part."""
        _print("registered", machine=machine)

    def waiting(self, standby: Standby) -> None:
        """There is nothing to run now."""
        offered = [{"name": each.name, "description": each.description} for each in standby.offered]
        _print("standby", reason=standby.reason, offered_deployments=offered)

    def ordered(self, order: RunOrder, *, again: bool) -> None:
        """A run begins, or goes on."""
        _print("order", run=order.run, attempt=order.attempt, image=order.image, again=again)

    def progressed(self, progress: RunProgress) -> None:
        """A run has made progress."""
        if progress.step_count:
            _print("progress", **vars(progress))

    def controlled(self, control: RunControl) -> None:
        """An operator pauses, resumes or cancels the run."""
        _print("control", run=control.run, action=control.action.value, reason=control.reason)

    def restarting(self, environment: Environment) -> None:
        """The machine restarts."""
        _print("restarting", environment=environment)

    def ended(self, order: RunOrder, end: RunEnd) -> None:
        """A run has ended, and the scheduler knows."""
        _print(
            "ended",
            run=order.run,
            outcome=end.outcome.value,
            step_name=end.step,
            error=end.error,
            output_tail=end.output_tail,
            remarks=[{"step_name": remark.step, "text": remark.text} for remark in end.remarks],
        )

    def noticed(self, sentence: str) -> None:
        """Something that a person may want to know."""
        _print("notice", text=sentence)


def _say(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)


def _print(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, **fields}, ensure_ascii=False), flush=True)
