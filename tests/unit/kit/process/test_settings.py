from pathlib import Path
from typing import ClassVar

import pytest
from fleetcast_kit.errors import FailedPreconditionError, InvalidArgumentError
from fleetcast_kit.process.settings import CommaSeparated, Settings


class ServerSettings(Settings):
    """What the tests read."""

    table: ClassVar[str] = "server"
    default_file: ClassVar[Path] = Path("/there/is/no/such.toml")

    listen: str = "0.0.0.0:7443"
    data_dir: Path = Path("/var/lib/fleetcast")
    uses: int = 1
    advertise: CommaSeparated = ()


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LISTEN", "DATA_DIR", "USES", "ADVERTISE", "CONFIG"):
        monkeypatch.delenv(f"FLEETCAST_{name}", raising=False)


def write(tmp_path: Path, content: str) -> Path:
    file = tmp_path / "fleetcast.toml"
    file.write_text(content)
    return file


def test_flags_come_before_the_environment_before_the_file_before_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, '[server]\nlisten = "file:1"\ndata_dir = "/file"\nuses = 3\n[agent]\nlisten = 7\n')
    monkeypatch.setenv("FLEETCAST_LISTEN", "environment:2")
    monkeypatch.setenv("FLEETCAST_DATA_DIR", "/environment")
    settings = ServerSettings.load(config=file, listen="flag:3", data_dir=None, advertise=[])
    assert settings.listen == "flag:3"
    assert settings.data_dir == Path("/environment")
    assert settings.uses == 3
    assert settings.advertise == ()


def test_several_texts_are_a_repeated_flag_a_list_in_a_variable_or_an_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ServerSettings.load(advertise=["a", "b"]).advertise == ("a", "b")
    file = write(tmp_path, '[server]\nadvertise = ["c", "d"]\n')
    assert ServerSettings.load(config=file).advertise == ("c", "d")
    monkeypatch.setenv("FLEETCAST_ADVERTISE", "e, f g")
    assert ServerSettings.load(config=file).advertise == ("e", "f", "g")


def test_the_file_may_be_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETCAST_CONFIG", str(write(tmp_path, "[server]\nuses = 5\n")))
    assert ServerSettings.load().uses == 5


def test_the_default_file_need_not_exist_and_a_named_one_must(tmp_path: Path) -> None:
    assert ServerSettings.load().uses == 1
    with pytest.raises(FailedPreconditionError, match=r"missing\.toml does not exist"):
        ServerSettings.load(config=tmp_path / "missing.toml")
    with pytest.raises(FailedPreconditionError, match="cannot be read: Is a directory"):
        ServerSettings.load(config=tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[server\n", "is not TOML"),
        ("server = 1\n", r"must be a table: write \[server\]"),
        ("[server]\nlisen = 'x'\n", r"^lisen in \[server\] of .*fleetcast\.toml: is not known"),
        ("[server]\nuses = 'x'\n", r"^uses in \[server\] of .*fleetcast\.toml = 'x': .*valid integer"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        ServerSettings.load(config=write(tmp_path, content))


def test_a_wrong_value_names_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^--uses = 'x': .*valid integer"):
        ServerSettings.load(uses="x")
    monkeypatch.setenv("FLEETCAST_USES", "y")
    with pytest.raises(InvalidArgumentError, match=r"^FLEETCAST_USES = 'y'"):
        ServerSettings.load()


def test_a_missing_value_names_the_flag_and_the_variable() -> None:
    class AgentSettings(Settings):
        server: str

    with pytest.raises(InvalidArgumentError, match="--server or FLEETCAST_SERVER: Field required"):
        AgentSettings.load()
