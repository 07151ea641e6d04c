"""What GRUB is told, what is decided while the scheduler is away, and why a machine may have stopped."""

import asyncio

import pytest
from fleetcast_boot.deciding import Decisions
from fleetcast_boot.domain import Answer, Asker, Decision, Firmware, Way
from fleetcast_boot.menus import BootFiles, first_menu, machine_menu
from fleetcast_boot.progress import BootProgress, Stage
from fleetcast_kit.errors import UnavailableError

MAC = "52:54:00:98:00:10"
FILES = BootFiles("http://10.0.0.1:7480/image/abc", "5e9c", "images.example.org:7443")
PC = Asker(MAC, (), Firmware.UEFI_AMD64, Way.PXE)


@pytest.mark.parametrize("answer", [Answer.INSTALL, Answer.KNOCK])
def test_a_machine_that_may_starts_the_boot_image_and_its_disk_if_that_fails(answer: Answer) -> None:
    menu = machine_menu(Decision(answer, "fct1-abc"), MAC, FILES)
    (kernel,) = [line for line in menu.splitlines() if line.startswith("linux ")]
    assert kernel.startswith("linux (http,10.0.0.1:7480)/image/abc/vmlinuz ")
    for argument in (
        "BOOTIF=01-52-54-00-98-00-10",
        "fleetcast.server=images.example.org:7443",
        "fleetcast.token=fct1-abc",
        "fleetcast.root=http://10.0.0.1:7480/image/abc/root.squashfs",
        "fleetcast.sha256=5e9c",
    ):
        assert argument in kernel.split()
    assert menu.index("\nboot\n") < menu.index("chainloader")
    assert len(kernel) < 2_047, "GRUB on BIOS takes no longer command line"


@pytest.mark.parametrize(
    ("answer", "files"), [(Answer.LOCAL, FILES), (Answer.SILENT, FILES), (Answer.INSTALL, None), (Answer.KNOCK, None)]
)
def test_every_other_machine_starts_its_disk(answer: Answer, files: BootFiles | None) -> None:
    menu = machine_menu(Decision(answer, "fct1-abc"), MAC, files)
    assert not any(line.startswith(("linux", "initrd")) for line in menu.splitlines())
    assert "fct1" not in menu
    assert "bootmgfw.efi" in menu


def test_what_could_be_a_command_of_grub_stays_a_value() -> None:
    menu = machine_menu(Decision(Answer.KNOCK, "x; reboot\n$(halt) 'a'"), MAC, FILES)
    (kernel,) = [line for line in menu.splitlines() if line.startswith("linux ")]
    assert "fleetcast.token=x%3B%20reboot%0A%24%28halt%29%20%27a%27" in kernel.split()


def test_the_first_menu_asks_for_the_machine_s_own_and_starts_the_disk_if_none_comes() -> None:
    menu = first_menu("10.0.0.1:7480")
    assert '"(http,10.0.0.1:7480)/machine/${net_default_mac}?platform=' in menu
    assert menu.index("configfile") < menu.index("chainloader")


class Scheduler:
    def __init__(self) -> None:
        self.asked: list[bool] = []
        self.answer: Decision | None = Decision(Answer.INSTALL, "fct1-x")
        self.open = asyncio.Event()
        self.open.set()

    async def decide(self, asker: Asker, *, with_token: bool) -> Decision:
        self.asked.append(with_token)
        await self.open.wait()
        if self.answer is None:
            raise UnavailableError("away")
        return self.answer


async def test_a_decision_is_asked_for_once_in_some_seconds_and_a_token_each_time() -> None:
    scheduler, now = Scheduler(), [0.0]
    decisions = Decisions(scheduler, lambda: now[0])
    for _ in range(3):
        assert (await decisions.for_offer(PC)).answer is Answer.INSTALL
    await decisions.for_menu(PC)
    await decisions.for_menu(PC)
    now[0] = 60
    await decisions.for_offer(PC)
    assert scheduler.asked == [False, True, True, False]


async def test_questions_about_one_machine_at_the_same_time_are_one() -> None:
    scheduler = Scheduler()
    scheduler.open.clear()
    decisions = Decisions(scheduler, lambda: 0.0)
    asked = [asyncio.create_task(decisions.for_offer(PC)) for _ in range(4)]
    await asyncio.sleep(0)
    scheduler.open.set()
    assert {(await each).answer for each in asked} == {Answer.INSTALL}
    assert scheduler.asked == [False]


async def test_while_the_scheduler_is_away_no_machine_is_installed() -> None:
    scheduler, now = Scheduler(), [0.0]
    decisions = Decisions(scheduler, lambda: now[0])
    scheduler.answer = None
    assert (await decisions.for_offer(PC)).answer is Answer.SILENT
    scheduler.answer = Decision(Answer.INSTALL, "fct1-x")
    await decisions.for_menu(PC)
    scheduler.answer, now[0] = None, 60.0
    assert (await decisions.for_menu(PC)).answer is Answer.LOCAL
    assert (await decisions.for_offer(PC)).answer is Answer.LOCAL


def test_why_a_machine_stopped_is_said_when_it_was_silent_for_a_while() -> None:
    progress = BootProgress()
    progress.asked(PC, Answer.INSTALL, "due", 0.0)
    (machine,) = progress
    assert machine.likely_reason(5) == ""
    assert "DHCP snooping" in machine.likely_reason(30)
    progress.reached(MAC, Stage.LOADER, 31)
    assert machine.likely_reason(40) == ""
    assert "never asked for its menu" in machine.likely_reason(60)
    progress.decided(MAC, Answer.LOCAL, "nothing due")
    progress.reached(MAC, Stage.MENU, 61)
    assert machine.likely_reason(600) == ""


def test_only_so_many_machines_are_remembered_those_heard_last() -> None:
    progress = BootProgress(most=3)
    for number in range(10):
        progress.asked(Asker(f"m{number}", (), Firmware.BIOS, Way.PXE), Answer.SILENT, "", float(number))
    assert [machine.asker.mac_address for machine in progress] == ["m7", "m8", "m9"]
    progress.reached("m1", Stage.IMAGE, 10.0)
    assert len(list(progress)) == 3
