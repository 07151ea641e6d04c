"""What machines that start from the network are answered, and who is admitted."""

from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.identity.key_code import key_code, read_code
from fleetcast_scheduler.boot.domain.decision import (
    MAX_TICKETS_OF_A_RUN,
    Answer,
    Asker,
    Decision,
    Work,
    decide,
    matches,
)
from fleetcast_scheduler.boot.domain.reports import BootReport, BootReports
from fleetcast_scheduler.boot.domain.tickets import LIFETIME_SECONDS, Tickets, Use
from fleetcast_scheduler.boot.domain.windows import admitting, opened
from fleetcast_scheduler.machines.domain.fleet import MachineFacts
from fleetcast_scheduler.machines.domain.machine import (
    Inventory,
    Machine,
    MachineState,
    RegistrationAction,
    RegistrationPolicy,
)
from fleetcast_scheduler.machines.domain.registration import recognised, register
from hypothesis import given
from hypothesis import strategies as st

MAC, OTHER_MAC = "52:54:00:00:00:01", "52:54:00:00:00:02"
UUID, OTHER_UUID = "0a0b0c0d-0000-4000-8000-000000000001", "0a0b0c0d-0000-4000-8000-000000000002"
DUE = Work("deployments/d/runs/1")
PC = Asker(MAC, frozenset({UUID, "0d0c0b0a-0000-0040-8000-000000000001"}), "UEFI amd64", "PXE")


def facts(
    name: str = "machines/1",
    *,
    uuid: str = UUID,
    mac: str = MAC,
    state: MachineState = MachineState.APPROVED,
    protected: bool = False,
) -> MachineFacts:
    macs = (mac,) if mac else ()
    return MachineFacts(
        name=name,
        display_name="pc-1",
        state=state,
        protected=protected,
        zone=ZoneInfo("UTC"),
        variables={},
        mac_addresses=macs,
        collections=("collections/room-5",),
        inventory=Inventory(smbios_uuid=uuid, mac_addresses=macs),
    )


def answered(
    *known: MachineFacts,
    asker: Asker = PC,
    work: Work | None = DUE,
    setting: str = "",
    is_open: bool = False,
    unknown_machines: Answer = Answer.KNOCK,
) -> Decision:
    found = matches(asker, known)
    return decide(found, work=work, setting=setting, is_open=is_open, unknown_machines=unknown_machines)


def test_a_known_machine_with_work_that_agrees_in_two_identifiers_is_installed() -> None:
    decision = answered(facts(), facts("machines/2", uuid=OTHER_UUID, mac=OTHER_MAC))
    assert (decision.answer, decision.machine) == (Answer.INSTALL, "machines/1")


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ([facts(uuid=OTHER_UUID)], "only its MAC address agrees"),
        ([facts(uuid="")], "only its MAC address agrees"),
        ([facts(mac=OTHER_MAC)], "only its SMBIOS UUID agrees"),
        ([facts(), facts("machines/2")], "two records agree with it: machines/1 and machines/2"),
    ],
)
def test_in_doubt_a_machine_starts_its_disk(known: list[MachineFacts], reason: str) -> None:
    decision = answered(*known)
    assert decision.answer is Answer.LOCAL
    assert reason in decision.reason


def test_a_machine_with_nothing_due_or_that_is_protected_starts_its_disk() -> None:
    assert answered(facts(), work=None).answer is Answer.LOCAL
    assert answered(facts(protected=True)).answer is Answer.LOCAL
    assert answered(facts(), setting="local").answer is Answer.LOCAL


def test_a_machine_that_is_to_be_left_alone_hears_nothing() -> None:
    assert answered(facts(), setting="silent").answer is Answer.SILENT


@pytest.mark.parametrize("policy", [Answer.KNOCK, Answer.LOCAL, Answer.SILENT])
def test_an_unknown_machine_is_answered_as_the_policy_says(policy: Answer) -> None:
    assert answered(work=None, unknown_machines=policy).answer is policy


def test_a_held_machine_knocks_whatever_is_due_for_it() -> None:
    assert answered(facts(state=MachineState.HELD)).answer is Answer.KNOCK


def test_an_imported_machine_knocks_while_its_collection_is_open_or_if_it_must_show_more() -> None:
    expected = facts(state=MachineState.EXPECTED)
    assert answered(expected, work=None).answer is Answer.LOCAL
    assert answered(expected, work=None, is_open=True).answer is Answer.KNOCK
    assert answered(expected).answer is Answer.INSTALL
    assert answered(facts(state=MachineState.EXPECTED, uuid="")).answer is Answer.KNOCK


def test_no_machine_is_installed_in_a_loop() -> None:
    worked = Work(DUE.run, tickets=MAX_TICKETS_OF_A_RUN)
    decision = answered(facts(), work=worked)
    assert decision.answer is Answer.LOCAL
    assert "did not get on" in decision.reason


@given(
    mac=st.sampled_from([MAC, OTHER_MAC]),
    uuids=st.sets(st.sampled_from([UUID, OTHER_UUID])),
    known=st.lists(
        st.builds(
            facts,
            st.sampled_from(["machines/1", "machines/2"]),
            uuid=st.sampled_from([UUID, OTHER_UUID, ""]),
            mac=st.sampled_from([MAC, OTHER_MAC, ""]),
            state=st.sampled_from(MachineState),
            protected=st.booleans(),
        ),
        max_size=3,
    ),
    work=st.sampled_from([None, DUE]),
    is_open=st.booleans(),
)
def test_no_ticket_without_work_and_two_identifiers_of_one_approved_or_expected_record(
    mac: str, uuids: set[str], known: list[MachineFacts], work: Work | None, is_open: bool
) -> None:
    decision = answered(*known, asker=Asker(mac, frozenset(uuids)), work=work, is_open=is_open)
    if decision.answer is Answer.INSTALL:
        sure = [one for one in known if one.inventory.smbios_uuid in uuids and mac in one.mac_addresses]
        assert work is not None
        assert len(sure) == 1
        assert sure[0].state is not MachineState.HELD
        assert not sure[0].protected


def test_a_ticket_works_once_and_again_for_the_same_key_and_tells_a_second_one() -> None:
    tickets = Tickets()
    text, is_new = tickets.issue("machines/1", 0.0)
    assert is_new
    assert tickets.issue("machines/1", 1.0) == (text, False), "a boot loader may ask twice for its menu"
    assert tickets.use(text, "key", 2.0) == (Use.FIRST, "machines/1")
    assert tickets.use(text, "key", 3.0) == (Use.AGAIN, "machines/1")
    assert tickets.use(text, "other", 4.0) == (Use.SECOND, "machines/1")
    again, is_new = tickets.issue("machines/1", 5.0)
    assert is_new
    assert again != text


def test_a_ticket_ends_after_ten_minutes_and_no_other_text_is_one() -> None:
    tickets = Tickets()
    text, _ = tickets.issue("machines/1", 0.0)
    assert tickets.use(text, "key", LIFETIME_SECONDS) == (Use.UNKNOWN, "")
    assert tickets.use("", "key", 0.0) == (Use.UNKNOWN, "")
    assert tickets.use("0" * 40, "key", 0.0) == (Use.UNKNOWN, "")


def test_a_window_admits_members_of_its_collection_until_its_end_and_no_more_than_are_expected() -> None:
    window = opened("collections/room-5", timedelta(hours=1), 2, 0.0)
    rooms = ("collections/room-5",)
    assert admitting([window], rooms, "machines/1", 10.0) is window
    assert admitting([window], ("collections/room-6",), "machines/1", 10.0) is None
    assert admitting([window], rooms, "machines/1", 3600.0) is None
    full = window.with_machine("machines/1").with_machine("machines/2").with_machine("machines/2")
    assert full.admitted == ("machines/1", "machines/2")
    assert admitting([full], rooms, "machines/3", 10.0) is None
    assert admitting([full], rooms, "machines/2", 10.0) is full


@pytest.mark.parametrize(("duration", "expected"), [(timedelta(), 0), (timedelta(days=8), 0), (None, -1)])
def test_a_window_out_of_range_is_refused(duration: timedelta | None, expected: int) -> None:
    with pytest.raises(InvalidArgumentError, match="not possible"):
        opened("collections/room-5", duration, expected, 0.0)


def test_only_the_last_reports_are_kept_and_an_older_one_replaces_none() -> None:
    reports = BootReports(most=2)

    def report(number: int, heard_time: float, stage: str = "asked") -> BootReport:
        asker = Asker(f"52:54:00:00:00:{number:02x}")
        return BootReport(asker, stage, Answer.KNOCK, "", 0.0, heard_time, "", "b")

    for number in range(3):
        reports.put(report(number, float(number)))
    reports.put(report(2, 1.0, "menu"))
    assert [(one.asker.mac_address[-2:], one.stage) for one in reports.newest()] == [("02", "asked"), ("01", "asked")]
    assert [one.asker.mac_address[-2:] for one in reports.newest((2.0, "52:54:00:00:00:02"))] == ["01"]


# A machine that knocks

ACCEPT = RegistrationPolicy(RegistrationAction.ACCEPT)


def machine(name: str, state: MachineState = MachineState.APPROVED, code: str = "", serial: str = "S1") -> Machine:
    inventory = Inventory(smbios_uuid=UUID, serial_number=serial, mac_addresses=(MAC,))
    return Machine(
        name=name, create_time=0.0, state=state, inventory=inventory, code=code, display_name=f"name of {name}"
    )


def test_a_machine_that_knocks_is_held_whatever_the_policy_and_shows_its_code() -> None:
    registered = register(machine("machines/new"), [], ACCEPT, known=None, code="K7QF-42X")
    assert registered is not None
    assert registered.machine.state is MachineState.HELD
    assert registered.machine.code == "K7QF-42X"
    assert "approve it if its screen shows K7QF-42X" in registered.machine.held_reason


def test_a_machine_that_knocks_takes_over_no_record_by_itself() -> None:
    imported = machine("machines/old", MachineState.EXPECTED)
    registered = register(machine("machines/new"), [imported], ACCEPT, known=None, code="K7QF-42X")
    assert registered is not None
    assert registered.machine.state is MachineState.HELD
    assert registered.machine.resembles == "machines/old"
    assert not registered.replaces
    assert recognised(machine("machines/new"), [imported]) is imported


def test_a_machine_that_knocks_again_with_another_key_takes_the_place_of_what_it_left() -> None:
    before = machine("machines/before", MachineState.HELD, code="AAAA-AAA")
    registered = register(machine("machines/new"), [before], ACCEPT, known=None, code="K7QF-42X")
    assert registered is not None
    assert registered.replaces == "machines/before"


def test_a_machine_that_got_the_identity_of_an_imported_record_by_a_ticket_is_approved() -> None:
    imported = machine("machines/1", MachineState.EXPECTED)
    registered = register(machine("machines/1", MachineState.EXPECTED), [], ACCEPT, known=imported)
    assert registered is not None
    assert registered.machine.state is MachineState.APPROVED


def test_a_ticket_in_the_hand_of_other_hardware_holds_the_machine() -> None:
    imported = machine("machines/1", MachineState.EXPECTED)
    inventory = Inventory(smbios_uuid=OTHER_UUID, serial_number="X", mac_addresses=(OTHER_MAC,))
    present = Machine(name="machines/1", create_time=0.0, state=MachineState.EXPECTED, inventory=inventory)
    registered = register(present, [], ACCEPT, known=imported)
    assert registered is not None
    assert registered.machine.state is MachineState.HELD


def test_a_code_is_the_same_for_a_key_and_read_as_people_write_it() -> None:
    code = key_code(b"a public key")
    assert code == key_code(b"a public key")
    assert code != key_code(b"another one")
    assert read_code(code) == read_code(code.lower().replace("-", " ")) == code
    assert read_code("k7of-i2x") == "K70F-12X"
    assert read_code("pc-07") == read_code("") == read_code("K7QF-42XX") == ""
