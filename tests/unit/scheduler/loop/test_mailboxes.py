import pytest
from fleetcast.scheduler.v1 import run_service_pb2
from fleetcast_kit.errors import AbortedError, InvalidArgumentError
from fleetcast_scheduler.deployments.domain.events import RunClosed, StandbyTold
from fleetcast_scheduler.deployments.mailbox import RunMailbox
from fleetcast_scheduler.loop.mailbox import Outgoing
from fleetcast_scheduler.sessions.domain.events import Dismissal, DismissalReason, Waiting
from fleetcast_scheduler.sessions.mailbox import SessionMailbox

MACHINE = "machines/pc1"
WAITS = Waiting("sessions/s", "images/i", "waits for pc2", 1, 2)
WAITS_STILL = Waiting("sessions/s", "images/i", "waits for pc3", 2, 3)
GONE = Dismissal(DismissalReason.CANCELLED, "an operator ended it")


async def heard(mailbox: SessionMailbox | RunMailbox) -> list[object]:
    """Returns what a machine hears from a mailbox that is closed."""
    messages: list[object] = []
    while (outgoing := await mailbox.next()) is not None:
        messages.append(outgoing.message)
    return messages


async def test_a_machine_in_a_session_hears_the_latest_message_alone() -> None:
    mailbox = SessionMailbox("sessions/s", MACHINE)
    mailbox.post(WAITS)
    mailbox.post(WAITS_STILL)
    mailbox.close()
    assert await heard(mailbox) == [WAITS_STILL]


async def test_nothing_takes_the_place_of_a_dismissal() -> None:
    mailbox = SessionMailbox("sessions/s", MACHINE)
    mailbox.post(GONE)
    mailbox.post(WAITS)
    mailbox.close()
    assert await heard(mailbox) == [GONE]


async def test_a_machine_hears_of_its_runs_in_order_but_of_standbys_the_latest() -> None:
    order, closed = run_service_pb2.RunOrder(run="deployments/d/runs/1"), RunClosed(MACHINE, "deployments/d/runs/0")
    mailbox = RunMailbox(MACHINE)
    for message in (closed, StandbyTold(MACHINE, "a"), StandbyTold(MACHINE, "b"), order, StandbyTold(MACHINE, "b")):
        mailbox.post(message)
    mailbox.close()
    assert await heard(mailbox) == [closed, StandbyTold(MACHINE, "b"), order, StandbyTold(MACHINE, "b")]


async def test_a_standby_that_says_nothing_new_is_not_said_again() -> None:
    mailbox = RunMailbox(MACHINE)
    mailbox.post(StandbyTold(MACHINE, "nothing to run"))
    assert await mailbox.next() == Outgoing(0, StandbyTold(MACHINE, "nothing to run"))
    mailbox.post(StandbyTold(MACHINE, "nothing to run"))
    mailbox.close()
    assert await heard(mailbox) == []


async def test_an_acknowledgement_is_sent_without_a_message_and_only_once() -> None:
    mailbox = RunMailbox(MACHINE)
    mailbox.acknowledge(3)
    mailbox.acknowledge(2)
    assert await mailbox.next() == Outgoing(3, None)
    mailbox.close()
    assert await mailbox.next() is None


async def test_a_stream_that_is_closed_with_an_error_says_nothing_more() -> None:
    mailbox = RunMailbox(MACHINE)
    mailbox.post(StandbyTold(MACHINE, "nothing to run"))
    mailbox.close(AbortedError("pc1 opened another stream"))
    with pytest.raises(AbortedError):
        await mailbox.next()


def test_the_numbers_of_requests_grow() -> None:
    mailbox = RunMailbox(MACHINE)
    mailbox.receive(4)
    with pytest.raises(InvalidArgumentError, match="sequence is 4 after 4: it must grow"):
        mailbox.receive(4)
