"""Steps that run commands and scripts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from fleetcast_sequence.steps.control import RunCommand, RunScript

from fleetcast_agent.sequence.context import RestartRequest, StepContext
from fleetcast_agent.sequence.disks import files, volumes
from fleetcast_agent.sequence.errors import StepError

_SCRIPT_INSIDE = "run/fleetcast-script"
_LENT = ("proc", "sys", "dev")
"""What a new system borrows from the running one while something runs in it."""


async def run_command(arguments: RunCommand, context: StepContext) -> None:
    """Runs the program."""
    if arguments.inside is None:
        await _run(arguments, context, arguments.command)
        return
    async with entered(context, arguments.inside) as root:
        await _run(arguments, context, ["chroot", str(root), *arguments.command])


async def run_script(arguments: RunScript, context: StepContext) -> None:
    """Runs the script."""
    if arguments.file is not None:
        text = await asyncio.to_thread(Path(arguments.file).read_bytes)
    else:
        text = str(arguments.script).encode()
    if arguments.inside is None:
        script = context.step_directory / "script"
        await asyncio.to_thread(script.write_bytes, text)
        await _run(arguments, context, [*arguments.interpreter, str(script), *arguments.arguments])
        return
    async with entered(context, arguments.inside) as root:
        script = files.inside(root, _SCRIPT_INSIDE)
        await asyncio.to_thread(_put, script, text)
        try:
            words = [*arguments.interpreter, f"/{_SCRIPT_INSIDE}", *arguments.arguments]
            await _run(arguments, context, ["chroot", str(root), *words])
        finally:
            script.unlink(missing_ok=True)


async def _run(arguments: RunCommand | RunScript, context: StepContext, command: Sequence[str]) -> None:
    secrets = [secret for secret in context.variables.secrets() if any(secret in word for word in command)]
    if secrets:
        raise StepError("a secret would show in the process list: pass it by `environment` or `stdin`")
    codes = [*arguments.success_codes, *arguments.restart_codes, *arguments.rerun_codes]
    finished = await context.tools.run(
        command,
        stdin=arguments.stdin.encode(),
        environment=arguments.environment,
        working_directory=Path(arguments.working_directory) if arguments.working_directory else None,
        success_codes=codes,
        judged=False,
    )
    results = context.results
    results.exit_code = finished.exit_code
    if finished.exit_code in (*arguments.restart_codes, *arguments.rerun_codes):
        results.restart = RestartRequest("installed", rerun=finished.exit_code in arguments.rerun_codes)
    if arguments.output_variable is not None:
        results.variables[arguments.output_variable] = finished.output.rstrip("\r\n")


@contextlib.asynccontextmanager
async def entered(context: StepContext, selector: str) -> AsyncIterator[Path]:
    """Yields where a new Linux system is mounted, with what programs in it need from the running one.

    Raises:
        StepError: the volume holds no Linux system.
    """
    volume = await volumes.find(context, selector)
    async with files.opened_tree(context, volume) as tree, contextlib.AsyncExitStack() as stack:
        root = tree.place("/")
        for name in _LENT:
            point = tree.place(name)
            if not point.is_dir():
                raise StepError(f"the volume {selector!r} holds no Linux system: it has no /{name}")
            await context.tools.run(["mount", "--rbind", "--make-rslave", f"/{name}", point])
            stack.push_async_callback(context.tools.run, ["umount", "--recursive", "--lazy", point])
        yield root


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
