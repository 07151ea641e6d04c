"""Steps that look at the machine, run commands, and steer the sequence."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fleetcast_sequence.model import RefersTo, SequenceModel, VariableName, VariableValue
from fleetcast_sequence.quantities import SizeBytes

SequenceReference = Annotated[
    str, Field(pattern=r"^(taskSequences/)?[a-z0-9][a-z0-9-]{0,62}(@sha256:[0-9a-f]{64})?$"), RefersTo("task-sequence")
]
Words = Annotated[list[str], Field(min_length=1)]


class CheckReadiness(SequenceModel):
    """Fails unless the machine has what the rest of the sequence needs. Everything that is missing is named at once."""

    min_memory: SizeBytes = Field(default=0, description="Least memory.")
    min_disk: SizeBytes = Field(default=0, description="Least size of the disk.")
    disk: str = Field(default="system", description="Which disk `min_disk` is about, as in `partition-disk`.")
    firmware: Literal["uefi", "bios"] | None = Field(
        default=None, description="Firmware the machine must have started with."
    )
    external_power: bool = Field(default=False, description="A machine with a battery must be on external power.")
    reachable: list[Annotated[str, Field(pattern=r"^.+:\d+$")]] = Field(
        default=[], description="`HOST:PORT` of TCP services that must answer within five seconds."
    )


class GatherInventory(SequenceModel):
    """Reads the hardware again, so that conditions and templates after it see `machine` as it is now."""


class SetVariables(SequenceModel):
    """Gives variables values. They win over every other source, until another step sets them again."""

    variables: Annotated[dict[VariableName, VariableValue], Field(min_length=1)] = Field(
        description="Name and value of each; a value may be a template."
    )


class Restart(SequenceModel):
    """Restarts the machine. The sequence goes on with the next step when the agent is back."""

    target: Literal["boot", "installed"] = Field(
        default="installed", description="What must come up: the `boot` environment or the `installed` system."
    )
    carry_state_to: str | None = Field(
        default=None,
        description="Volume that takes the progress of the sequence along, when the boot environment forgets it.",
    )


class _Process(SequenceModel):
    environment: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str] = Field(
        default={}, description="Environment variables. The place for secrets, which may not stand in a command."
    )
    stdin: str = Field(default="", description="Text for its standard input. May hold secrets.")
    inside: str | None = Field(
        default=None, description="Volume with the new Linux system to run in; the running system by default."
    )
    working_directory: str | None = Field(default=None, description="Where it runs.")
    success_codes: Annotated[list[int], Field(min_length=1)] = Field(
        default=[0], description="Exit codes that mean success."
    )
    restart_codes: list[int] = Field(
        default=[], description="Exit codes that mean success after a restart to the installed system, such as 3010."
    )
    rerun_codes: list[int] = Field(
        default=[], description="Exit codes that ask for a restart after which this same step runs again."
    )
    output_variable: VariableName | None = Field(
        default=None, description="Variable that receives its standard output, without the last line end."
    )


class RunCommand(_Process):
    """Runs one program with its arguments, without a shell."""

    command: Words = Field(description="The program and its arguments.")


class RunScript(_Process):
    """Runs a script, given here or as a file in a downloaded package."""

    script: str | None = Field(default=None, description="The script itself.")
    file: str | None = Field(
        default=None, description="Path of the script on the running system, such as one from a package."
    )
    interpreter: Words = Field(
        default=["/bin/sh", "-e"], description="What runs it; the script's path follows as last word."
    )
    arguments: list[str] = Field(default=[], description="Arguments of the script.")

    @model_validator(mode="after")
    def _one_source(self) -> RunScript:
        if (self.script is None) == (self.file is None):
            raise ValueError("give either `script` or `file`")
        return self


class RunTaskSequence(SequenceModel):
    """Runs the steps of another task sequence here, as a group. This sequence's variables win over its own."""

    sequence: SequenceReference = Field(description="The task sequence, such as `join-domain`.")
    variables: dict[VariableName, VariableValue] = Field(
        default={}, description="Variables to set before its first step."
    )


COMMAND_LINE_FIELDS: dict[str, tuple[str, ...]] = {
    "run-command": ("command",),
    "run-script": ("interpreter", "arguments"),
}
"""Arguments that everybody on the machine can read in the process list, hence no place for secrets."""


def holds_command_line(step_type: str, path: tuple[Any, ...]) -> bool:
    """Returns whether the argument at `path` of such a step ends up in the process list."""
    return bool(path) and path[0] in COMMAND_LINE_FIELDS.get(step_type, ())
