"""The step that writes Windows' answer file; what reads and writes it for other steps."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from fleetcast_sequence.steps.settings import ApplyWindowsSettings, DomainJoin

from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.disks import files, volumes
from fleetcast_agent.sequence.disks.files import MountedFiles
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.unattend import PATH, Unattend, element, hidden_password

_SHELL = "Microsoft-Windows-Shell-Setup"
_JOIN = "Microsoft-Windows-UnattendedJoin"
_INTERNATIONAL = "Microsoft-Windows-International-Core"


async def apply_windows_settings(arguments: ApplyWindowsSettings, context: StepContext) -> None:
    """Merges the fields into the answer file."""
    given = None
    if arguments.answer_file is not None:
        given = await asyncio.to_thread(Path(arguments.answer_file).read_bytes)
    async with answer_file(context, arguments.volume, arguments.architecture, given=given) as (_, answers):
        answers.set(
            "specialize",
            _SHELL,
            {
                "ComputerName": arguments.computer_name or "",
                "RegisteredOrganization": arguments.organization,
                "RegisteredOwner": arguments.owner,
                "TimeZone": arguments.time_zone,
                "ProductKey": arguments.product_key or "",
            },
        )
        languages = dict.fromkeys(("SystemLocale", "UILanguage", "UserLocale"), arguments.locale)
        keyboard = {"InputLocale": arguments.keyboard or arguments.locale}
        if arguments.locale or arguments.keyboard:
            for phase in ("specialize", "oobeSystem"):
                answers.set(phase, _INTERNATIONAL, keyboard | languages)
        if arguments.administrator_password is not None:
            password = hidden_password(arguments.administrator_password, "AdministratorPassword")
            path = "UserAccounts/AdministratorPassword"
            answers.set("oobeSystem", _SHELL, {f"{path}/Value": password, f"{path}/PlainText": "false"})
            answers.set(
                "oobeSystem",
                _SHELL,
                {
                    f"OOBE/{name}": "true"
                    for name in ("HideEULAPage", "HideLocalAccountScreen", "HideOnlineAccountScreens")
                },
            )
        _membership(answers, arguments.domain, arguments.workgroup or "")


def _membership(answers: Unattend, domain: DomainJoin | None, workgroup: str) -> None:
    if domain is not None:
        answers.set(
            "specialize",
            _JOIN,
            {
                "Identification/Credentials/Domain": domain.name,
                "Identification/Credentials/Username": domain.account,
                "Identification/Credentials/Password": domain.password,
                "Identification/JoinDomain": domain.name,
                "Identification/MachineObjectOU": domain.organizational_unit,
            },
        )
    elif workgroup:
        parent = answers.component("specialize", _JOIN)
        element(parent, "Identification").clear()
        answers.set("specialize", _JOIN, {"Identification/JoinWorkgroup": workgroup})


@contextlib.asynccontextmanager
async def answer_file(
    context: StepContext, selector: str, architecture: str, *, given: bytes | None = None
) -> AsyncIterator[tuple[MountedFiles, Unattend]]:
    """Yields the files of the volume with Windows, and its answer file (or `given` in its place), written afterwards.

    Raises:
        StepError: there is no Windows on the volume, or the file is none.
    """
    volume = await volumes.find(context, selector)
    async with files.opened_tree(context, volume) as tree:
        if not tree.exists("Windows"):
            raise StepError(f"the volume {selector!r} holds no Windows: it has no directory of that name")
        answers = Unattend(given if given is not None else await tree.read(PATH), architecture)
        yield tree, answers
        await tree.write(PATH, answers.to_bytes())
