"""The step that brings drivers into a new Windows."""

from __future__ import annotations

import asyncio

from fleetcast_sequence.steps.settings import ApplyDriverPackage

from fleetcast_agent.sequence.content import unpacking
from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.steps import package
from fleetcast_agent.sequence.steps.place_files import copy_tree
from fleetcast_agent.sequence.steps.windows_settings import answer_file
from fleetcast_agent.sequence.unattend import Unattend, clear, element, item

DIRECTORY = "Drivers"
"""Where the drivers lie on the Windows volume until Windows has installed them."""
_AND_IMPORT = "and import what is in it as a ZIP archive"
_UNPACK = {
    "a Windows program (EXE)": f"unpack it as its vendor says (often with /extract or 7-Zip), {_AND_IMPORT}",
    "a Windows Installer package (MSI)": rf"unpack it (msiexec /a FILE /qn TARGETDIR=C:\drivers), {_AND_IMPORT}",
    "a 7-Zip archive": f"unpack it, {_AND_IMPORT}",
    "a RAR archive": f"unpack it, {_AND_IMPORT}",
}
"""What to do with what vendors ship drivers in."""
_DEPLOYMENT = "Microsoft-Windows-Deployment"
_INSTALL = r"cmd.exe /c pnputil.exe /add-driver %SystemDrive%\Drivers\*.inf /subdirs /install"


async def apply_driver_package(arguments: ApplyDriverPackage, context: StepContext) -> None:
    """Finds the package for this machine, copies it, and has Windows install it in its specialize pass."""
    choice = next((choice for choice in arguments.packages if context.variables.holds(choice.when)), None)
    if choice is None:
        machine = context.variables.context.get("machine", {})
        model = f"{machine.get('manufacturer', '')} {machine.get('model', '')}".strip() or "this machine"
        if arguments.match_required:
            raise StepError(f"no driver package is for {model}: add one with a condition that holds for it")
        context.log(f"no driver package is for {model}")
        return
    context.log(f"takes the driver package {choice.package}")
    directory = await package.fetch(context, choice.package, delivery=arguments.delivery, cabinets=True)
    if not directory.is_dir():
        kind = await asyncio.to_thread(unpacking.kind_of, directory)
        hint = _UNPACK.get(kind, "pack the driver's files, with its .inf, into a ZIP archive, and import that")
        raise StepError(f"the package {choice.package} is {kind or 'no archive'}, not an archive of drivers: {hint}")
    if not any(path.suffix.lower() == ".inf" for path in directory.rglob("*")):
        raise StepError(f"the package {choice.package} holds no driver: there is no .inf file in it")
    async with answer_file(context, arguments.volume, arguments.architecture) as (tree, answers):
        await copy_tree(context, directory, tree, DIRECTORY, filesystem="ntfs")
        _install(answers)


def _install(answers: Unattend) -> None:
    commands = element(answers.component("specialize", _DEPLOYMENT), "RunSynchronous")
    for command in list(commands):
        if any(child.text == _INSTALL for child in command):
            return
    command = item(commands, "RunSynchronousCommand")
    for name, value in (("Order", str(len(commands))), ("Path", _INSTALL), ("Description", "Install drivers")):
        clear(command, name).text = value
