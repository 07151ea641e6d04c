"""The command line: one group of commands for each kind of resource, imported when it is used."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer
from fleetcast_kit.process.commandline import EXIT_CODES_HELP
from typer.core import TyperGroup

_GROUPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "image": ("Images: import them, look at them, prove them, delete them.", ("images.commands", "images.importing")),
    "task-sequence": (
        "Task sequences: what becomes of a machine.",
        ("task_sequences.commands", "task_sequences.files"),
    ),
    "machine": (
        "Machines: who they are, what they are made of, whether they may take part.",
        ("machines.commands", "machines.importing", "deployments.machine_history"),
    ),
    "collection": (
        "Collections: sets of machines, by name and by a rule over their hardware.",
        ("collections.commands",),
    ),
    "deploy": ("Deploy an image or a task sequence to the machines of a collection.", ("deployments.deploy",)),
    "deployment": (
        "Deployments: where each machine is, and what to do about it.",
        ("deployments.commands", "deployments.watch"),
    ),
    "session": (
        "Sessions: one image to the machines that join.",
        ("sessions.commands", "sessions.operations", "sessions.watch"),
    ),
    "sender": (
        "Senders: where they are, what they send, whether they get sessions.",
        ("senders.commands", "senders.watch"),
    ),
    "boot": ("Machines that start from the network: who is admitted, how far each got.", ("boot.commands",)),
    "audit": ("The record of who did what, when, with which values.", ("audit",)),
    "enrolment-token": ("Enrolment tokens: permissions for machines to enrol.", ("enrolment_tokens",)),
}
"""Help and modules of each group. The first module has the group, the others add commands to it."""


class _Group(TyperGroup):
    """A group whose modules are imported when one of its commands is wanted."""

    def __init__(self, name: str, summary: str, modules: tuple[str, ...]) -> None:
        super().__init__(name=name, help=summary)
        self._modules = modules

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the context of the group behind the name."""
        modules = [importlib.import_module(f"fleetcast_cli.{module}") for module in self._modules]
        group = typer.main.get_group(modules[0].group)
        group.help = self.help
        found = group.commands.get(str(self.name), group)  # a group with a command of its own name is that command
        return found.make_context(*args, **kwargs)


class _Groups(TyperGroup):
    """All groups, in the order in which people meet them."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, (summary, modules) in _GROUPS.items():
            self.add_command(_Group(name, summary, modules))


app = typer.Typer(
    name="fleetcast",
    cls=_Groups,
    help="Install operating systems on many machines at once.",
    epilog=EXIT_CODES_HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def configure(
    context: typer.Context,
    server: Annotated[
        str | None,
        typer.Option(
            "--server",
            envvar="FLEETCAST_SERVER",
            metavar="HOST:PORT",
            help="The server; without it, the address beside the credential.",
        ),
    ] = None,
    credentials: Annotated[
        Path | None,
        typer.Option(
            "--credentials",
            envvar="FLEETCAST_CREDENTIALS",
            metavar="DIR",
            help="Directory of the administrator's credential; without it, ~/.config/fleetcast.",
        ),
    ] = None,
    catalog: Annotated[
        str | None,
        typer.Option(
            "--catalog",
            envvar="FLEETCAST_CATALOG",
            metavar="HOST:PORT",
            help="The catalog, if it is apart from the server; without it, the address beside the credential.",
        ),
    ] = None,
) -> None:
    """Install operating systems on many machines at once."""
    from fleetcast_cli.shell.connection import Connection  # noqa: PLC0415 - gRPC, which the list of commands does not need

    context.obj = Connection(server, credentials, catalog)
