from fleetcast.scheduler.v1 import session_pb2
from fleetcast.scheduler.v1.session_pb2 import Participant, UnicastMachines, UnicastReason
from fleetcast_cli.sessions.unicast import unicast_fields, unicast_lines, unicast_remark
from fleetcast_cli.sessions.view import machine_change


def participant(name: str, reason: UnicastReason.ValueType, *, unicast: bool = False, said: str = "") -> Participant:
    return Participant(
        machine=f"machines/{name}",
        state=Participant.STATE_RECEIVING,
        unicast_reason=reason,
        unicast=unicast,
        no_multicast_reason=said,
    )


def test_machines_are_counted_by_the_reason_for_unicast_and_each_says_what_to_do() -> None:
    deaf = [participant(name, session_pb2.UNICAST_REASON_DEAF) for name in "abc"]
    slow = participant("d", session_pb2.UNICAST_REASON_SLOW)
    by_multicast = participant("e", session_pb2.UNICAST_REASON_UNSPECIFIED)
    (first, second) = unicast_fields([slow, *deaf, by_multicast])
    assert first[0] == "by unicast"
    assert first[1].startswith("3 machines: hears nothing of the group; ")
    assert "IGMP snooping" in first[1]
    assert second[1].startswith("1 machine: slower than the others; ")
    assert "--slow-policy" in second[1]


def test_what_a_machine_said_itself_is_shown_in_its_words() -> None:
    wireless = participant("a", session_pb2.UNICAST_REASON_NO_MULTICAST, unicast=True, said="wlan0 is wireless")
    assert unicast_remark(wireless) == "by unicast: wlan0 is wireless"


def test_a_sender_that_is_older_than_the_reasons_leaves_what_the_scheduler_knows() -> None:
    unknown = session_pb2.UNICAST_REASON_UNSPECIFIED
    said = participant("a", unknown, unicast=True, said="wlan0 is wireless")
    decided = participant("b", unknown, unicast=True)
    assert [unicast_remark(said), unicast_remark(decided)] == [
        "by unicast: wlan0 is wireless",
        "by unicast: an operator decided so",
    ]
    assert unicast_fields([participant("c", unknown)]) == []


def test_every_reason_of_the_api_has_its_words() -> None:
    reasons = [value for value in UnicastReason.values() if value != session_pb2.UNICAST_REASON_UNSPECIFIED]
    lines = unicast_lines([UnicastMachines(reason=value, machine_count=2) for value in reasons])
    assert len(set(lines)) == len(reasons)
    assert all(line.startswith("2 machines by unicast: ") and "; " in line for line in lines)


def test_a_reason_that_only_a_newer_server_knows_is_left_out() -> None:
    assert unicast_lines([UnicastMachines(reason=99, machine_count=2)]) == []  # type: ignore[arg-type]


def test_a_watch_says_when_a_machine_goes_to_unicast_for_good_and_not_for_a_moment() -> None:
    before = participant("a", session_pb2.UNICAST_REASON_UNSPECIFIED)
    deaf = participant("a", session_pb2.UNICAST_REASON_DEAF)
    alone = participant("a", session_pb2.UNICAST_REASON_ALONE)
    assert "hears nothing of the group" in (machine_change(before, deaf) or "")
    assert machine_change(before, alone) is None
