"""The trace of one command, from the operator down to each agent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tests.support.collector import Span, TraceCollector, render

COMMAND = "fleetcast session create"
DEPLOY_COMMAND = "fleetcast deploy"
WAIT_SECONDS = 10.0


@dataclass(frozen=True)
class TraceStory:
    """All spans of the trace that one `fleetcast session create` or `fleetcast deploy` began."""

    spans: list[Span]

    @classmethod
    def each(cls, collector: TraceCollector, count: int, *, command: str = COMMAND) -> list[TraceStory]:
        """Returns the stories of the first `count` commands, in their order, once they are all told or time is up."""

        def stories(spans: Iterable[Span]) -> list[TraceStory]:
            ordered = sorted(spans, key=lambda span: span.start_seconds)
            roots = [span for span in ordered if span.name == command and not span.parent_id]
            return [cls([span for span in ordered if span.trace_id == root.trace_id]) for root in roots]

        try:
            spans = collector.wait_for(lambda spans: len(stories(spans)) >= count, WAIT_SECONDS)
        except TimeoutError:
            spans = collector.spans
        return stories(spans)[:count]

    @property
    def text(self) -> str:
        """The tree, without the statements of databases."""
        return render(span for span in self.spans if "db.system" not in span.attributes)

    def is_complete(self, machine_count: int) -> bool:
        """Returns whether every span leads up to the command, and as many agents are among them as machines."""
        known = {span.span_id for span in self.spans}
        orphans = [span for span in self.spans if span.parent_id and span.parent_id not in known]
        agents = [
            span
            for span in self.spans
            if span.service == "fleetcast-agent" and self._parent_service(span) != "fleetcast-agent"
        ]
        services = {span.service for span in self.spans}
        return not orphans and len(agents) >= machine_count and {"fleetcast-cli", "fleetcast-server"} <= services

    def _parent_service(self, span: Span) -> str:
        return next((other.service for other in self.spans if other.span_id == span.parent_id), "")
