from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fleetcast.catalog.v1 import task_sequence_service_pb2
from fleetcast.catalog.v1.task_sequence_service_pb2_grpc import TaskSequenceServiceStub
from fleetcast_kit.identity.peer import Role
from fleetcast_sequence import digest, parse, schema
from fleetcast_sequence.ready import ready_sequences

from tests.support.catalog import CatalogSite, serving_catalog
from tests.support.forked import Ended, run_forked

GOOD = "# kept\nname: lab\ndescription: The lab.\nsteps:\n  - {name: Rest, type: restart}\n"
REFERRING = "name: lab\nsteps: [{name: A, type: apply-data-image, with: {image: data, volume: c}}]\n"
BAD = "name: lab\nsteps:\n  - {name: a, type: restart, colour: red}\n  - {name: b, type: restrat}\n"
BAD_LINES = (
    "{file}:3:30: steps[0].colour: 'colour' is not known here\n"
    "{file}:4:21: steps[1].type: there is no step type 'restrat': did you mean 'restart'?\n"
    "fleetcast: {file} has 2 problems: correct the file\n"
)


@dataclass(frozen=True)
class Cli:
    """An administrator with a directory, in front of a catalog."""

    catalog: CatalogSite
    directory: Path

    async def run(self, *arguments: str, stdin: str = "") -> Ended:
        """Returns how `fleetcast task-sequence` with these arguments ended."""
        server = ["--server", self.catalog.server.address, "--credentials", str(self.directory / "administrator")]
        return await run_forked([*server, "task-sequence", *arguments], stdin=stdin.encode(), environment={"TZ": "UTC"})

    async def json(self, *arguments: str) -> Any:
        ended = await self.run(*arguments, "--json")
        assert (ended.code, ended.err) == (0, ""), ended
        return json.loads(ended.out)

    async def text(self, *arguments: str, stdin: str = "") -> str:
        ended = await self.run(*arguments, stdin=stdin)
        assert (ended.code, ended.err) == (0, ""), ended
        return ended.out

    def file(self, content: str, name: str = "lab.yaml") -> str:
        """Returns the path of a new file."""
        (self.directory / name).write_text(content)
        return str(self.directory / name)


@pytest.fixture
async def cli(tmp_path: Path) -> AsyncIterator[Cli]:
    async with serving_catalog(tmp_path / "catalog") as catalog:
        catalog.server.credentials(Role.ADMINISTRATOR).save(tmp_path / "administrator")
        yield Cli(catalog, tmp_path)


async def alone(*arguments: str, home: Path, stdin: str = "") -> Ended:
    """Returns how a command ends on a host without server and credential."""
    environment = {"HOME": str(home)}
    return await run_forked(["task-sequence", *arguments], stdin=stdin.encode(), environment=environment)


async def test_a_file_is_created_listed_shown_exported_and_deleted(cli: Cli) -> None:
    assert "no task sequences; make one with" in await cli.text("list")
    file = cli.file(GOOD)
    short = f"lab@{digest(parse(GOOD))[:19]}"
    assert await cli.text("create", file) == f"created {short}: 1 step\n"
    assert (await cli.text("create", file)).startswith(f"{short} exists with this content since ")
    assert short in await cli.text("list")
    shown = await cli.text("show", "lab")
    assert "The lab." in shown
    assert "restart" in shown
    assert await cli.text("export", short) == GOOD
    copy = cli.directory / "copy.yaml"
    ended = await cli.run("export", "lab", "--output", str(copy))
    assert (ended.code, copy.read_text()) == (0, GOOD)
    assert "exists: give another name" in (await cli.run("export", "lab", "--output", str(copy))).err
    assert await cli.text("delete", short[:16]) == f"deleted {short}\n"
    assert (await cli.run("show", "lab")).code == 3


async def test_what_is_printed_as_json_is_whole(cli: Cli) -> None:
    created = await cli.json("create", cli.file(REFERRING))
    name = f"taskSequences/lab@{digest(parse(REFERRING))}"
    assert created["created"] is True
    assert created["task_sequence"]["name"] == name
    assert "there is no image data" in created["task_sequence"]["references"][0]["problem"]
    assert [each["name"] for each in (await cli.json("list"))["task_sequences"]] == [name]
    assert (await cli.json("show", "lab"))["nodes"][0]["type"] == "apply-data-image"
    validated = await cli.json("validate", cli.file(REFERRING))
    assert (validated["valid"], validated["references_checked"]) == (True, True)
    assert [each["name"] for each in (await cli.json("ready", "list"))["ready"]] == sorted(ready_sequences())
    assert await cli.json("delete", "lab") == {"name": name}


async def test_every_error_is_a_line_with_its_place_and_exit_code_2(cli: Cli) -> None:
    file = cli.file(BAD, "bad.yaml")
    for command in ("create", "validate"):
        ended = await cli.run(command, file)
        assert (ended.code, ended.out, ended.err) == (2, "", BAD_LINES.format(file=file))
    ended = await cli.run("create", "-", stdin=BAD)
    assert (ended.code, ended.err) == (2, BAD_LINES.format(file="<stdin>"))
    ended = await cli.run("validate", file, "--json")
    problems = json.loads(ended.out)["problems"]
    assert (ended.code, [(each["line"], each["column"]) for each in problems]) == (2, [(3, 30), (4, 21)])
    assert "no task sequences" in await cli.text("list")


async def test_references_that_lead_nowhere_are_warnings_at_their_place(cli: Cli) -> None:
    file = cli.file(REFERRING)
    for command in ("validate", "create"):
        ended = await cli.run(command, file)
        assert ended.code == 0
        assert ended.err.startswith(f"{file}:2:57: warning: steps[0].with.image: there is no image data")
    await cli.catalog.upload("data", b"content")
    await cli.text("validate", file)


async def test_a_file_is_stored_under_another_name(cli: Cli) -> None:
    file = cli.file(GOOD)
    assert (await cli.text("create", file, "--name", "room-1")).startswith("created room-1@")
    assert await cli.text("export", "room-1") == GOOD.replace("name: lab", "name: room-1")
    ended = await cli.run("create", file, "--name", "Room 1")
    assert (ended.code, ended.out) == (2, "")
    assert "'Room 1' is not the name of a task sequence" in ended.err


async def test_what_ships_is_listed_shown_and_created(cli: Cli) -> None:
    shipped = ready_sequences()
    listed = await cli.text("ready", "list")
    assert all(name in listed for name in shipped)
    assert await cli.text("ready", "show", "refresh-windows") == shipped["refresh-windows"]
    ended = await cli.run("create", "--ready", "bare-metal-windows", "--name", "mine")
    assert (ended.code, ended.out.split("@")[0]) == (0, "created mine")
    lines = shipped["bare-metal-windows"].splitlines()
    number, line = next(each for each in enumerate(lines, 1) if "image: windows-11" in each[1])
    assert f"bare-metal-windows.yaml:{number}:{line.index('windows-11') + 1}: warning: " in ended.err
    ended = await cli.run("create", "--ready", "nothing")
    assert (ended.code, "there are bare-metal-linux, " in ended.err) == (3, True)


async def test_an_older_content_that_is_created_again_does_not_become_the_newest(cli: Cli) -> None:
    await cli.text("create", cli.file(GOOD))
    await cli.text("create", cli.file(GOOD.replace("Rest,", "Again,")))
    ended = await cli.run("create", cli.file(GOOD))
    assert ended.code == 0
    assert ended.err.startswith("the newest version is still lab@sha256:")
    assert len((await cli.json("list"))["task_sequences"]) == 1
    assert len((await cli.json("list", "--all"))["task_sequences"]) == 2
    assert len((await cli.json("list", "lab"))["task_sequences"]) == 2
    ended = await cli.run("delete", "lab")
    assert (ended.code, "several versions" in ended.err) == (6, True)


async def test_a_sequence_in_use_is_not_deleted(cli: Cli) -> None:
    await cli.text("create", cli.file(GOOD))
    async with cli.catalog.server.dial(Role.SERVICE) as channel:
        request = task_sequence_service_pb2.HoldTaskSequenceRequest(name="taskSequences/lab", holder="deployments/1")
        await TaskSequenceServiceStub(channel).HoldTaskSequence(request)
    ended = await cli.run("delete", "lab")
    assert (ended.code, "is in use by deployments/1: end that first" in ended.err) == (6, True)
    assert "deployments/1" in await cli.text("show", "lab")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("create",), "give either a FILE or --ready NAME"),
        (("create", "x.yaml", "--ready", "y"), "give either a FILE or --ready NAME"),
        (("create", "/nowhere.yaml"), "cannot read /nowhere.yaml: No such file or directory"),
        (("create", "/"), "cannot read /: Is a directory"),
        (("show", "A B"), "'A B' is not the name of a task sequence"),
        (("show", "lab@12"), "'12' is not a digest"),
        (("export",), "Missing argument"),
    ],
)
async def test_bad_arguments_end_with_one_line_and_exit_code_2(
    cli: Cli, arguments: tuple[str, ...], sentence: str
) -> None:
    ended = await cli.run(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert sentence in ended.err
    assert ended.err.count("\n") == 1


async def test_the_format_is_checked_without_a_server_and_the_rest_is_said(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(REFERRING)
    ended = await alone("validate", str(file), home=tmp_path)
    assert (ended.code, ended.out) == (0, f"{file}: valid, 1 step, {digest(parse(REFERRING))}\n")
    assert ended.err.startswith("not checked: 1 reference, and step types that only the server has")
    file.write_text(BAD)
    ended = await alone("validate", str(file), home=tmp_path)
    assert (ended.code, ended.err) == (2, BAD_LINES.format(file=file))
    ended = await alone("validate", "-", home=tmp_path, stdin=GOOD)
    assert "not checked, and step types that only the server has" in ended.err
    data = json.loads((await alone("validate", str(file), "--json", home=tmp_path)).out)
    assert (data["valid"], data["references_checked"]) == (False, False)


async def test_a_server_that_is_away_is_no_server_and_one_that_refuses_is_one(cli: Cli, tmp_path: Path) -> None:
    file = cli.file(GOOD)
    options = ["--server", "localhost:1", "--credentials", str(cli.directory / "administrator")]
    ended = await run_forked([*options, "task-sequence", "validate", file], environment={})
    assert (ended.code, "cannot reach the server at localhost:1" in ended.err) == (0, True)
    cli.catalog.server.credentials(Role.MACHINE).save(tmp_path / "machine")
    options = ["--server", cli.catalog.server.address, "--credentials", str(tmp_path / "machine")]
    ended = await run_forked([*options, "task-sequence", "validate", file], environment={})
    assert (ended.code, "ValidateTaskSequence is for: administrator" in ended.err) == (5, True)


async def test_a_file_that_is_no_text_is_refused_at_its_place(tmp_path: Path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_bytes("name: é\ndescription: é".encode() + b"\xff\n")
    ended = await alone("validate", str(file), home=tmp_path)
    assert (ended.code, ended.err.splitlines()[0]) == (2, f"{file}:2:15: the text is not UTF-8")
    file.write_bytes(bytes(5 << 20))
    ended = await alone("validate", str(file), home=tmp_path)
    assert (ended.code, "is longer than 4 MiB: it is no task sequence" in ended.err) == (2, True)


async def test_the_schema_is_printed_for_editors(tmp_path: Path) -> None:
    ended = await alone("schema", home=tmp_path)
    assert (ended.code, json.loads(ended.out)) == (0, json.loads(json.dumps(schema())))
