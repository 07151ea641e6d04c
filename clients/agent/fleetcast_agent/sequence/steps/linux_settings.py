"""The step that gives a Linux system its own identity."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from fleetcast_sequence.steps.settings import ApplyLinuxSettings

from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.disks import carrying
from fleetcast_agent.sequence.disks.files import inside
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.steps.command import entered


async def apply_linux_settings(arguments: ApplyLinuxSettings, context: StepContext) -> None:
    """Writes the settings."""
    async with entered(context, arguments.volume) as root:
        if not inside(root, "/etc").is_dir():
            raise StepError(f"the volume {arguments.volume!r} holds no Linux system: it has no /etc")
        if arguments.host_name is not None:
            _host_name(root, arguments.host_name)
        if arguments.locale:
            for path in ("/etc/default/locale", "/etc/locale.conf"):
                _write(root, path, f"LANG={arguments.locale}\n")
        if arguments.time_zone:
            _time_zone(root, arguments.time_zone)
        if arguments.new_identity:
            _forget(root)
            _forget_agent(root, context.run_directory)
            if inside(root, "/usr/bin/ssh-keygen").exists():
                await context.tools.run(["chroot", root, "ssh-keygen", "-A"])


def _host_name(root: Path, host_name: str) -> None:
    short = host_name.partition(".")[0]
    _write(root, "/etc/hostname", f"{short}\n")
    hosts = inside(root, "/etc/hosts")
    lines = hosts.read_text().splitlines() if hosts.exists() else ["127.0.0.1\tlocalhost", "::1\tlocalhost"]
    kept = [line for line in lines if not line.startswith("127.0.1.1")]
    names = host_name if short == host_name else f"{host_name} {short}"
    _write(root, "/etc/hosts", "\n".join([*kept, f"127.0.1.1\t{names}"]) + "\n")


def _time_zone(root: Path, time_zone: str) -> None:
    zone = f"/usr/share/zoneinfo/{time_zone}"
    if not inside(root, zone).is_file():
        raise StepError(f"the new system knows no time zone {time_zone!r}")
    link = inside(root, "/etc") / "localtime"
    link.unlink(missing_ok=True)
    link.symlink_to(zone)
    _write(root, "/etc/timezone", f"{time_zone}\n")


def _forget(root: Path) -> None:
    """Gives the system a machine id of its own, and takes away what every copy of the image would share."""
    _write(root, "/etc/machine-id", f"{uuid.uuid4().hex}\n")
    copy = inside(root, "/var/lib/dbus") / "machine-id"
    if copy.is_file() and not copy.is_symlink():
        copy.unlink()
    inside(root, "/var/lib/systemd/random-seed").unlink(missing_ok=True)
    keys = inside(root, "/etc/ssh")
    for key in keys.glob("ssh_host_*_key*"):
        key.unlink()


def _forget_agent(root: Path, run_directory: Path) -> None:
    """Removes the identity and the runs of a copied agent; not those of the agent that runs this."""
    state = inside(root, carrying.LINUX)
    running = any(parent.exists() and state.exists() and parent.samefile(state) for parent in run_directory.parents)
    if state.is_dir() and not running:
        for path in state.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _write(root: Path, path: str, text: str) -> None:
    place = inside(root, path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    os.chmod(place, 0o444 if place.name == "machine-id" else 0o644)
