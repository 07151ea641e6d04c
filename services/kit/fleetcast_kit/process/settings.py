"""Settings of a process: flags before FLEETCAST_* variables before the TOML file before defaults."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from fleetcast_kit.errors import FailedPreconditionError, InvalidArgumentError
from fleetcast_kit.process.logs import LogFormat
from fleetcast_kit.values.addresses import DEFAULT_PORT

PREFIX = "FLEETCAST_"
DEFAULT_FILE = Path("/etc/fleetcast/fleetcast.toml")
FILE_VARIABLE = "FLEETCAST_CONFIG"

CommaSeparated = Annotated[
    tuple[str, ...],
    NoDecode,
    BeforeValidator(lambda value: [v for v in re.split(r"[,\s]+", value) if v] if isinstance(value, str) else value),
]
"""Type of a field with several texts: a repeated flag, `A,B` in a variable, an array in the file."""


class Settings(BaseSettings):
    """Base of every process's settings: a subclass names its table in the file and declares its fields.

    A field `data_dir` is the flag `--data-dir`, the variable FLEETCAST_DATA_DIR, and the key `data_dir` in the table.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, env_ignore_empty=True)

    table: ClassVar[str] = ""
    """Table of the file that holds the keys, such as `server`."""
    default_file: ClassVar[Path] = DEFAULT_FILE
    """The file that counts if no other is named. It need not exist."""

    @classmethod
    def load(cls, *, config: Path | None = None, **flags: Any) -> Self:
        """Returns the settings; a flag that is None or an empty list was not given.

        `config` is the value of `--config`; without it FLEETCAST_CONFIG and then /etc/fleetcast/fleetcast.toml count,
        and the last need not exist.

        Raises:
            InvalidArgumentError: a value is wrong; the sentence names where it came from.
            FailedPreconditionError: the file cannot be read.
        """
        given = {name: value for name, value in flags.items() if value is not None and value != []}
        file = config or Path(os.environ.get(FILE_VARIABLE) or cls.default_file)
        values = cls._read(file, required=file != cls.default_file)
        beaten = {name for name in values if os.environ.get(PREFIX + name.upper())}
        try:
            return cls(**({name: value for name, value in values.items() if name not in beaten} | given))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = str(first["loc"][0]) if first["loc"] else ""
            source = cls._source_of(name, given, values, file)
            what = "is not known" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
            shown = f" = {first['input']!r}" if first["type"] not in ("missing", "extra_forbidden") else ""
            raise InvalidArgumentError(f"{source}{shown}: {what}", field=name) from error

    @classmethod
    def _read(cls, file: Path, *, required: bool) -> dict[str, Any]:
        try:
            content = tomllib.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            if required:
                raise FailedPreconditionError(f"the configuration file {file} does not exist") from None
            return {}
        except OSError as error:
            raise FailedPreconditionError(f"the configuration file {file} cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidArgumentError(f"the configuration file {file} is not TOML: {error}") from error
        values = content.get(cls.table, {})
        if not isinstance(values, dict):
            raise InvalidArgumentError(f"{cls.table} in {file} must be a table: write [{cls.table}]")
        return values

    @classmethod
    def _source_of(cls, name: str, given: dict[str, Any], values: dict[str, Any], file: Path) -> str:
        if name in given:
            return "--" + name.replace("_", "-")
        variable = PREFIX + name.upper()
        if os.environ.get(variable):
            return variable
        if name in values:
            return f"{name} in [{cls.table}] of {file}"
        return f"--{name.replace('_', '-')} or {variable}"


def default_data_directory() -> Path:
    """Returns where a service keeps its data: the system's place for root, the user's own for others."""
    return Path("/var/lib/fleetcast") if os.geteuid() == 0 else Path.home() / ".local" / "share" / "fleetcast"


class ServiceSettings(Settings):
    """What every service lets an administrator set."""

    listen: str = f"[::]:{DEFAULT_PORT}"
    """HOST:PORT of its own port; port 0 takes a free one."""
    log_format: LogFormat = "human"
    """Form of the log on standard error."""
