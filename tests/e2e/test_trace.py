from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import DiskImage
from tests.support.collector import Span, TraceCollector, render
from tests.support.installation import Installation

pytestmark = pytest.mark.e2e

MACHINES = ("one", "two", "three")


@pytest.fixture
def traced_installation(tmp_path: Path, collector: TraceCollector) -> Iterator[Installation]:
    """Returns an installation whose processes all export their spans to `collector`."""
    with Installation(tmp_path / "installation", environment=collector.environment()) as running:
        running.start_server()
        yield running


def test_one_trace_leads_from_the_command_through_scheduler_and_sender_to_every_agent(
    traced_installation: Installation, collector: TraceCollector, make_disk_image: Callable[..., DiskImage]
) -> None:
    site = traced_installation
    site.fleetcast("image", "import", str(make_disk_image(12).file), "--name", "disk")
    machines = site.enrol(MACHINES)
    session = site.fleetcast("session", "create", "--image", "disk", "--min-clients", str(len(MACHINES)))["name"]
    for reception in [site.receive(each, each.directory / "disk.img", session=session) for each in machines]:
        reception.wait()
    site.stop_server()
    spans = collector.spans
    by_id = {span.span_id: span for span in spans}

    def path(span: Span) -> list[tuple[str, str, str]]:
        """Returns service, name and kind of a span and of all above it, the root first."""
        above = path(by_id[span.parent_id]) if span.parent_id else []
        return [*above, (span.service, span.name, span.kind)]

    scheduler = "/fleetcast.scheduler.v1.SessionService/CreateSession"
    catalog = "/fleetcast.catalog.v1.CatalogService/HoldImage"
    sender = "/fleetcast.sender.v1.TransmissionService/Receive"
    command = ("fleetcast-cli", "fleetcast session create", "internal")
    to_session = [
        command,
        ("fleetcast-cli", scheduler, "client"),
        ("fleetcast-server", scheduler, "server"),
        ("fleetcast-server", "session", "internal"),
    ]
    (root,) = [span for span in spans if span.name == command[1]]
    story = [span for span in spans if span.trace_id == root.trace_id]
    tree = render(story)
    assert not [span for span in story if span.parent_id and span.parent_id not in by_id], tree
    assert not [span.name for span in story if span.error], tree

    def paths(name: str, kind: str, service: str) -> list[list[tuple[str, str, str]]]:
        return [path(span) for span in story if (span.name, span.kind, span.service) == (name, kind, service)]

    held = [*to_session, ("fleetcast-server", catalog, "client"), ("fleetcast-server", catalog, "server")]
    assert paths(catalog, "server", "fleetcast-server") == [held], tree
    (sent,) = paths("transmission", "internal", "fleetcast-server")
    assert sent[: len(to_session)] == to_session, tree
    receive = [*to_session, ("fleetcast-agent", "receive", "internal")]
    assert paths("receive", "internal", "fleetcast-agent") == [receive] * len(MACHINES), tree
    served = [*receive, ("fleetcast-agent", sender, "client"), ("fleetcast-server", sender, "server")]
    assert paths(sender, "server", "fleetcast-server") == [served] * len(MACHINES), tree
