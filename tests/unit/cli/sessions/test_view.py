import re
from collections.abc import Iterable

from fleetcast.scheduler.v1.session_pb2 import Participant, ReceptionTotals, Session, StartRules, Transmission
from fleetcast_cli.sessions.view import (
    machine_change,
    screen,
    session_change,
    session_fields,
    state_line,
    summary,
)
from rich.console import Console, RenderableType

SIZE = 1_000_000_000


def render(view: RenderableType, *, width: int = 160) -> str:
    console = Console(width=width, markup=False)
    with console.capture() as capture:
        console.print(view)
    return capture.get()


def participant(name: str, state: "Participant.State.ValueType", written_bytes: int = 0) -> Participant:
    return Participant(
        name=f"sessions/s1/participants/{name}",
        machine=f"machines/{name}",
        display_name=f"pc-{name}",
        state=state,
        totals=ReceptionTotals(
            size_bytes=SIZE,
            written_bytes=written_bytes,
            datagram_count=990,
            lost_datagram_count=8,
            overflow_datagram_count=2,
        ),
        rate_bytes_per_second=112_000_000,
        remaining_seconds=75,
    )


def by_name(participants: Iterable[Participant]) -> dict[str, Participant]:
    return {each.name: each for each in participants}


WAITING = Session(
    name="sessions/s1",
    image=f"images/win11@sha256:{'ab' * 32}",
    state=Session.STATE_WAITING,
    start_rules=StartRules(min_clients=3),
    waiting_reason="waits for machines",
    participant_count=2,
    image_size_bytes=SIZE,
)
RUNNING = Session(
    name="sessions/s1",
    image=WAITING.image,
    state=Session.STATE_RUNNING,
    start_rules=StartRules(min_clients=3),
    participant_count=3,
    succeeded_count=1,
    transmission=Transmission(name="t", rate_bits_per_second=941_000_000, sent_source_bytes=SIZE),
)
setattr(RUNNING.transmission, "pass", 2)


def test_a_waiting_session_says_how_many_are_missing() -> None:
    assert state_line(WAITING) == "waiting; waits for machines; 1 of 3 missing"


def test_a_running_session_says_its_rate_and_pass() -> None:
    assert state_line(RUNNING) == "running; 941 Mbit/s, pass 2; 3 machines, 1 succeeded"


def test_the_screen_shows_percent_rate_loss_and_time_left() -> None:
    shown = render(
        screen(RUNNING, by_name([participant("a1", Participant.STATE_RECEIVING, SIZE // 3)]), rows=24, notice="")
    )
    row = next(line for line in shown.splitlines() if "pc-a1" in line)
    assert row.split() == ["pc-a1", "receiving", "33", "%", "112", "MB/s", "1", "%", "1:15"]


def test_a_crowded_screen_shows_those_in_need_first_and_counts_the_rest() -> None:
    machines = [participant(f"m{number}", Participant.STATE_SUCCEEDED, SIZE) for number in range(30)]
    machines.append(participant("broken", Participant.STATE_FAILED))
    machines.append(participant("gone", Participant.STATE_LOST))
    shown = render(screen(RUNNING, by_name(machines), rows=14, notice="no contact with the server"))
    lines = shown.splitlines()
    assert len(lines) <= 14
    assert "no contact with the server" in lines[2]
    assert shown.index("pc-broken") < shown.index("pc-gone") < shown.index("pc-m")
    assert "and 26 more machines" in lines[-1]


def test_text_from_a_server_is_shown_as_it_is() -> None:
    failed = participant("a1", Participant.STATE_FAILED)
    failed.error = "cannot write [bold]/dev/sda[/bold]: [Errno 28] no space"
    assert failed.error in render(screen(RUNNING, by_name([failed]), rows=24, notice=""))


def test_a_lost_machine_says_since_when() -> None:
    lost = participant("a1", Participant.STATE_LOST)
    lost.contact_time.FromSeconds(1_764_554_400)
    assert "no contact since 2025-12-01" in render(summary(RUNNING, by_name([lost])))


def test_a_machine_that_takes_no_multicast_says_why() -> None:
    apart, wireless = (participant(name, Participant.STATE_RECEIVING) for name in ("a1", "b2"))
    apart.unicast = wireless.unicast = True
    wireless.no_multicast_reason = "wlan0 is a wireless interface"
    lines = render(screen(RUNNING, by_name([apart, wireless]), rows=24, notice="")).splitlines()
    assert lines[-2].rstrip().endswith("by unicast: an operator decided so")
    assert lines[-1].rstrip().endswith("by unicast: wlan0 is a wireless interface")


def test_a_narrow_screen_has_room_for_what_is_wrong_with_a_machine() -> None:
    lost = participant("a1b2c3d4e5f6g7h8", Participant.STATE_LOST)
    lost.contact_time.FromSeconds(1_764_554_400)
    lost.display_name = "workstation-0815"
    row = render(screen(RUNNING, by_name([lost]), rows=24, notice=""), width=80).splitlines()[-1]
    assert re.search(r"^workstation-0815 .*no contact since \d\d:\d\d:\d\d", row)


def test_change_lines_come_with_states_and_tenths_only() -> None:
    before = participant("a1", Participant.STATE_RECEIVING, SIZE * 31 // 100)
    assert machine_change(before, participant("a1", Participant.STATE_RECEIVING, SIZE * 39 // 100)) is None
    assert machine_change(before, participant("a1", Participant.STATE_RECEIVING, SIZE * 41 // 100)) == (
        "pc-a1 (a1): receiving, 41 %, 112 MB/s, loss 1 %, 1:15 left"
    )
    assert (
        machine_change(before, participant("a1", Participant.STATE_SUCCEEDED, SIZE)) == "pc-a1 (a1): succeeded, 100 %"
    )
    assert machine_change(None, participant("a1", Participant.STATE_WAITING)) == "pc-a1 (a1): waiting, 0 %"


def test_a_session_line_comes_when_something_that_matters_changed() -> None:
    assert session_change(None, WAITING) is not None
    assert session_change(WAITING, WAITING) is None
    assert session_change(WAITING, RUNNING) == ("session s1: running; 941 Mbit/s, pass 2; 3 machines, 1 succeeded")


def test_the_fields_of_a_session_name_its_start_rules() -> None:
    session = Session()
    session.CopyFrom(WAITING)
    assert dict(session_fields(session))["starts with"] == "3 machines"
    session.start_rules.start_delay.FromSeconds(90)
    assert dict(session_fields(session))["starts with"] == "3 machines or 1m30s after the first"
    session.start_rules.match = StartRules.MATCH_ALL
    session.start_rules.quiet_time.FromSeconds(60)
    session.start_rules.manual = True
    assert dict(session_fields(session))["starts with"] == (
        "3 machines and 1m30s after the first and 1m after the last and by hand"
    )
    session.ClearField("start_rules")
    assert dict(session_fields(session))["starts with"] == "first machine"
    assert dict(session_fields(session))["rate"] == "auto"
