from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import pytest
from fleetcast.catalog.v1 import task_sequence_service_pb2
from fleetcast.catalog.v1.task_sequence_pb2 import ResolvedTaskSequence, TaskSequence
from fleetcast.catalog.v1.task_sequence_service_pb2_grpc import TaskSequenceServiceStub
from fleetcast_kit.errors import (
    FailedPreconditionError,
    FleetcastError,
    InvalidArgumentError,
    NotFoundError,
    from_rpc_error,
)
from fleetcast_kit.identity.authority import CertificateAuthority
from fleetcast_kit.identity.peer import Identity, Role
from fleetcast_kit.rpc.channel import open_channel
from fleetcast_sequence import canonical, digest, from_canonical, parse, references
from fleetcast_sequence.ready import ready_sequences

from tests.support.catalog import CatalogSite, serving_catalog
from tests.support.trust import NAMES

if TYPE_CHECKING:  # the class is in the stubs only
    from fleetcast.catalog.v1.task_sequence_service_pb2_grpc import TaskSequenceServiceAsyncStub

Answer = TypeVar("Answer")
DEPLOYMENT = "deployments/20261201-1"
SEQUENCE = """\
# A comment that stays.
name: lab
description: Puts the lab in order.
variables: {password: {secret: true, required: true, description: Of everybody.}, site: Berlin}
steps:
  - name: Apply
    type: apply-operating-system
    with: {image: win11, volume: c}
  - name: Rest
    when: machine.firmware == "uefi"
    steps:
      - {name: Join, type: run-task-sequence, with: {sequence: join}}
"""
JOIN = "name: join\nsteps: [{name: Tools, type: download-package, with: {package: tools, path_variable: tools}}]\n"


@dataclass
class Sequences:
    """A catalog, and calls about its task sequences, each in the role that makes it."""

    catalog: CatalogSite
    administrator: TaskSequenceServiceAsyncStub
    service: TaskSequenceServiceAsyncStub

    async def create(self, source: str, **fields: Any) -> task_sequence_service_pb2.CreateTaskSequenceResponse:
        request = task_sequence_service_pb2.CreateTaskSequenceRequest(
            source=source, request_id=str(uuid.uuid4()), **fields
        )
        return await told(self.administrator.CreateTaskSequence(request))

    async def made(self, source: str) -> TaskSequence:
        return (await self.create(source)).task_sequence

    async def validate(self, source: str) -> task_sequence_service_pb2.ValidateTaskSequenceResponse:
        return await told(
            self.administrator.ValidateTaskSequence(
                task_sequence_service_pb2.ValidateTaskSequenceRequest(source=source)
            )
        )

    async def get(self, name: str) -> TaskSequence:
        request = task_sequence_service_pb2.GetTaskSequenceRequest(name=name)
        return (await told(self.administrator.GetTaskSequence(request))).task_sequence

    async def page(self, **fields: Any) -> task_sequence_service_pb2.ListTaskSequencesResponse:
        return await told(
            self.administrator.ListTaskSequences(task_sequence_service_pb2.ListTaskSequencesRequest(**fields))
        )

    async def names(self, **fields: Any) -> list[str]:
        return [each.name for each in (await self.page(**fields)).task_sequences]

    async def source(self, name: str) -> str:
        request = task_sequence_service_pb2.GetTaskSequenceSourceRequest(name=name)
        return (await told(self.administrator.GetTaskSequenceSource(request))).source

    async def delete(self, name: str, request_id: str = "") -> str:
        request = task_sequence_service_pb2.DeleteTaskSequenceRequest(name=name, request_id=request_id)
        return (await told(self.administrator.DeleteTaskSequence(request))).name

    async def resolve(self, name: str) -> ResolvedTaskSequence:
        request = task_sequence_service_pb2.ResolveTaskSequenceRequest(name=name)
        return (await told(self.service.ResolveTaskSequence(request))).resolved

    async def hold(self, name: str, holder: str = DEPLOYMENT) -> ResolvedTaskSequence:
        request = task_sequence_service_pb2.HoldTaskSequenceRequest(name=name, holder=holder)
        return (await told(self.service.HoldTaskSequence(request))).resolved

    async def release(self, holder: str = DEPLOYMENT) -> None:
        await told(
            self.service.ReleaseTaskSequence(task_sequence_service_pb2.ReleaseTaskSequenceRequest(holder=holder))
        )

    async def holds(self, prefix: str = "") -> list[tuple[str, str]]:
        request = task_sequence_service_pb2.ListTaskSequenceHoldsRequest(holder_prefix=prefix)
        return [(hold.name, hold.holder) for hold in (await told(self.service.ListTaskSequenceHolds(request))).holds]


async def told(call: Awaitable[Answer]) -> Answer:
    """Returns the answer to a call, or raises what the catalog raised."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error


@asynccontextmanager
async def serving_sequences(directory: Path, authority: CertificateAuthority | None = None) -> AsyncIterator[Sequences]:
    async with serving_catalog(directory, authority) as catalog, AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(catalog.server.dial(role)) for role in (Role.ADMINISTRATOR, Role.SERVICE)
        ]
        yield Sequences(catalog, *map(TaskSequenceServiceStub, channels))


@pytest.fixture
async def sequences(tmp_path: Path) -> AsyncIterator[Sequences]:
    async with serving_sequences(tmp_path) as site:
        yield site


async def test_a_file_becomes_a_version_that_is_exported_as_it_was(sequences: Sequences) -> None:
    answer = await sequences.create(SEQUENCE, source_file="folder/lab.yaml")
    version = answer.task_sequence
    assert answer.created
    assert version.name == f"taskSequences/lab@{digest(parse(SEQUENCE))}"
    assert (version.step_count, version.source_file) == (2, "lab.yaml")
    assert [(node.place, node.display_name, node.type) for node in version.nodes] == [
        ("1", "Apply", "apply-operating-system"),
        ("2", "Rest", ""),
        ("2.1", "Join", "run-task-sequence"),
    ]
    assert [(variable.variable, variable.secret, variable.default_text) for variable in version.variables] == [
        ("password", True, ""),
        ("site", False, "Berlin"),
    ]
    found = await sequences.get("taskSequences/lab")
    assert (found.name, found.nodes, found.variables) == (version.name, version.nodes, version.variables)
    assert await sequences.source(version.name) == SEQUENCE


async def test_a_version_says_where_its_references_stand_and_that_they_lead_nowhere(sequences: Sequences) -> None:
    version = await sequences.made(SEQUENCE)
    assert [(each.name, each.line, each.column, each.path) for each in version.references] == [
        ("images/win11", 8, 19, "steps[0].with.image"),
        ("taskSequences/join", 12, 64, "steps[1].steps[0].with.sequence"),
    ]
    assert "there is no image win11" in version.references[0].problem
    await sequences.catalog.upload("win11", b"content")
    await sequences.made(JOIN)
    problems = [each.problem for each in (await sequences.get(version.name)).references]
    assert problems[0] == ""
    assert problems[1].startswith("in join, step 'Tools': there is no image tools")


async def test_the_same_content_again_is_the_same_version(sequences: Sequences) -> None:
    first = await sequences.create(SEQUENCE)
    again = await sequences.create(SEQUENCE.replace("# A comment that stays.", "# Another."))
    assert not again.created
    assert again.task_sequence.name == first.task_sequence.name
    assert await sequences.source("taskSequences/lab") == SEQUENCE
    assert len(await sequences.names()) == 1


async def test_the_same_content_from_many_at_once_is_created_once(sequences: Sequences) -> None:
    answers = await asyncio.gather(*(sequences.create(SEQUENCE) for _ in range(10)))
    assert sum(answer.created for answer in answers) == 1
    assert len({answer.task_sequence.name for answer in answers}) == 1


async def test_every_error_of_a_file_comes_back_with_its_place(sequences: Sequences) -> None:
    source = "name: Bad Name\nsteps:\n  - {name: a, type: partition-dsk}\n  - {name: b, type: restart, colour: red}\n"
    with pytest.raises(InvalidArgumentError) as raised:
        await sequences.create(source)
    assert (raised.value.reason, raised.value.metadata) == ("TASK_SEQUENCE_INVALID", {"problem_count": "3"})
    assert raised.value.message.startswith("the file has 3 problems, the first one at 1:7: name: ")
    assert [text.split(": ")[:2] for _, text in raised.value.violations] == [
        ["1:7", "name"],
        ["3:21", "steps[0].type"],
        ["4:30", "steps[1].colour"],
    ]
    found = (await sequences.validate(source)).problems
    assert [(each.line, each.column) for each in found] == [(1, 7), (3, 21), (4, 30)]
    assert await sequences.names() == []


async def test_a_file_with_a_thousand_errors_is_answered(sequences: Sequences) -> None:
    source = "name: a\nsteps:\n" + "  - {name: ä, type: restart, färbe: rot}\n" * 1000
    with pytest.raises(InvalidArgumentError) as raised:
        await sequences.create(source)
    assert raised.value.metadata == {"problem_count": "1000"}
    assert len((await sequences.validate(source)).problems) == 1000


@pytest.mark.parametrize("source", ["", "\x01", "a: [", "x" * (1 << 20), "x" * ((1 << 20) + 1), "name: {{ x }}"])
async def test_what_is_no_task_sequence_is_refused(sequences: Sequences, source: str) -> None:
    with pytest.raises(InvalidArgumentError):
        await sequences.create(source)
    assert (await sequences.validate(source)).problems


async def test_a_validation_says_what_a_file_would_be_and_stores_nothing(sequences: Sequences) -> None:
    answer = await sequences.validate(SEQUENCE)
    assert answer.task_sequence.digest == digest(parse(SEQUENCE))
    assert [bool(each.problem) for each in answer.task_sequence.references] == [True, True]
    assert await sequences.names() == []


async def test_the_ready_sequences_are_accepted(sequences: Sequences) -> None:
    for name, source in ready_sequences().items():
        assert (await sequences.made(source)).task_sequence == name


async def test_versions_are_listed_in_pages_all_of_them_or_the_newest_of_each(sequences: Sequences) -> None:
    made = [(await sequences.made(JOIN.replace("tools}}", f"t{n}}}}}"))).name for n in range(3)]
    made += [(await sequences.made(SEQUENCE)).name]
    made.reverse()
    assert await sequences.names() == made
    assert await sequences.names(newest_only=True) == made[:2]
    assert await sequences.names(task_sequence="join") == made[1:]
    first = await sequences.page(page_size=3)
    second = await sequences.page(page_size=3, page_token=first.next_page_token)
    assert [each.name for each in (*first.task_sequences, *second.task_sequences)] == made
    assert not second.next_page_token
    assert not first.task_sequences[0].nodes


async def test_what_does_not_exist_is_not_found(sequences: Sequences) -> None:
    await sequences.made(JOIN)
    for name, problem in (
        ("taskSequences/nothing", "there is no task sequence nothing"),
        (f"taskSequences/join@sha256:{'0' * 64}", "task sequence join has no version sha256:000"),
    ):
        for call in (sequences.get, sequences.source, sequences.delete, sequences.resolve, sequences.hold):
            with pytest.raises(NotFoundError, match=problem):
                await call(name)


async def test_a_series_with_several_versions_is_not_deleted_by_its_name_alone(sequences: Sequences) -> None:
    first = await sequences.made(JOIN)
    second = await sequences.made(JOIN.replace("tools}}", "t}}"))
    with pytest.raises(FailedPreconditionError, match="several versions"):
        await sequences.delete("taskSequences/join")
    await sequences.delete(first.name)
    request_id = str(uuid.uuid4())
    assert await sequences.delete("taskSequences/join", request_id) == second.name
    assert await sequences.delete("taskSequences/join", request_id) == ""
    assert await sequences.names() == []


async def test_a_deployment_holds_all_that_its_sequence_needs(sequences: Sequences) -> None:
    image = await sequences.catalog.upload("win11", b"content")
    tools = await sequences.catalog.upload("tools", b"other content")
    version, join = await sequences.made(SEQUENCE), await sequences.made(JOIN)
    resolved = await sequences.hold("taskSequences/lab")
    assert [(each.name, each.size_bytes, each.is_wim) for each in resolved.images] == [
        (image.name, 7, False),
        (tools.name, 13, False),
    ]
    assert list(resolved.child_task_sequences) == [join.name]
    assert list(resolved.required_variables) == ["password"]
    pinned = from_canonical(resolved.canonical_form)
    assert [f"images/{each.name}" for each in references(pinned)] == [image.name, tools.name]
    assert digest(pinned) == resolved.digest
    for name in (version.name, join.name):
        with pytest.raises(FailedPreconditionError, match="is in use by deployments/20261201-1") as raised:
            await sequences.delete(name)
        assert raised.value.reason == "TASK_SEQUENCE_IN_USE"
    for name in (image.name, tools.name):
        with pytest.raises(FailedPreconditionError, match="is in use by deployments/20261201-1"):
            await sequences.catalog.delete(name)
    assert (await sequences.get(version.name)).holders == [DEPLOYMENT]
    assert sorted(await sequences.holds("deployments/")) == sorted(
        [(version.name, DEPLOYMENT), (join.name, DEPLOYMENT)]
    )
    assert await sequences.holds("sessions/") == []
    await sequences.release()
    await sequences.release()
    assert await sequences.holds() == []
    for name in (version.name, join.name):
        await sequences.delete(name)
    await sequences.catalog.delete(image.name)


async def test_holding_again_replaces_what_was_held(sequences: Sequences) -> None:
    await sequences.catalog.upload("tools", b"old")
    first = await sequences.made(JOIN)
    held = await sequences.hold("taskSequences/join")
    newer = await sequences.catalog.upload("tools", b"new")
    again = await sequences.hold("taskSequences/join")
    assert [each.name for each in again.images] == [newer.name]
    await sequences.catalog.delete(held.images[0].name)
    assert await sequences.holds() == [(first.name, DEPLOYMENT)]


async def test_one_of_two_holders_leaves_the_other_its_holds(sequences: Sequences) -> None:
    await sequences.catalog.upload("tools", b"content")
    version = await sequences.made(JOIN)
    for holder in (DEPLOYMENT, "deployments/2"):
        await sequences.hold(version.name, holder)
    await sequences.release("deployments/2")
    with pytest.raises(FailedPreconditionError, match=DEPLOYMENT):
        await sequences.delete(version.name)


async def test_what_a_holder_pinned_stays_although_newer_versions_come(sequences: Sequences) -> None:
    tools = await sequences.catalog.upload("tools", b"content")
    held = await sequences.hold((await sequences.made(JOIN)).name)
    await sequences.catalog.upload("tools", b"newer content")
    assert [each.name for each in held.images] == [tools.name]
    assert (await sequences.resolve(held.task_sequence.name)).digest != held.digest


async def test_broken_references_are_refused_with_their_names_and_nothing_is_held(sequences: Sequences) -> None:
    await sequences.made(SEQUENCE)
    await sequences.made(JOIN)
    for call in (sequences.resolve, sequences.hold):
        with pytest.raises(FailedPreconditionError) as raised:
            await call("taskSequences/lab")
        assert raised.value.reason == "BROKEN_REFERENCE"
        assert raised.value.metadata == {"references": "images/win11, taskSequences/join"}
        assert "step 'Apply': there is no image win11" in raised.value.message
    assert await sequences.holds() == []


async def test_a_damaged_image_is_a_broken_reference(sequences: Sequences) -> None:
    image = await sequences.catalog.upload("tools", b"content")
    await sequences.made(JOIN)
    for chunk in sequences.catalog.stored_chunks():
        sequences.catalog.app.chunk_store.path(chunk).write_bytes(b"damage")
    await sequences.catalog.verify(image.name)
    with pytest.raises(FailedPreconditionError, match="tools"):
        await sequences.resolve("taskSequences/join")


async def test_each_call_is_for_its_roles_alone(sequences: Sequences) -> None:
    administrator, service = {Role.ADMINISTRATOR}, {Role.SERVICE}
    allowed = {
        "CreateTaskSequence": administrator,
        "ValidateTaskSequence": administrator,
        "GetTaskSequence": administrator | service,
        "ListTaskSequences": administrator,
        "GetTaskSequenceSource": administrator,
        "DeleteTaskSequence": administrator,
        "ResolveTaskSequence": administrator | service,
        "HoldTaskSequence": service,
        "ReleaseTaskSequence": service,
        "ListTaskSequenceHolds": service,
    }
    methods = task_sequence_service_pb2.DESCRIPTOR.services_by_name["TaskSequenceService"].methods
    assert {method.name for method in methods} == allowed.keys()
    for role in (Role.ADMINISTRATOR, Role.MACHINE, Role.SENDER, Role.SERVICE):
        async with sequences.catalog.server.dial(role) as channel:
            for method in methods:
                try:
                    await getattr(TaskSequenceServiceStub(channel), method.name)(
                        getattr(task_sequence_service_pb2, method.input_type.name)()
                    )
                    code = grpc.StatusCode.OK
                except grpc.aio.AioRpcError as error:
                    code = error.code()
                assert (code is not grpc.StatusCode.PERMISSION_DENIED) == (role in allowed[method.name]), method.name


async def test_versions_and_holds_survive_a_restart(tmp_path: Path) -> None:
    async with serving_sequences(tmp_path) as sequences:
        await sequences.catalog.upload("tools", b"content")
        version = await sequences.made(JOIN)
        resolved = await sequences.hold(version.name)
    async with serving_sequences(tmp_path) as sequences:
        assert (await sequences.get("taskSequences/join")).holders == [DEPLOYMENT]
        assert (await sequences.resolve(version.name)).canonical_form == resolved.canonical_form


async def test_a_catalog_that_is_killed_keeps_whole_versions_and_all_that_it_confirmed(tmp_path: Path) -> None:
    authority = CertificateAuthority.create()
    authority.issue_credentials(Identity.of(Role.SERVICE, "catalog"), names=NAMES).save(tmp_path / "server")
    steps = "".join(f"  - {{name: S{number}, type: gather-inventory}}\n" for number in range(30))
    confirmed: list[str] = []
    enough = asyncio.Event()

    async def creating(stub: TaskSequenceServiceAsyncStub, worker: int) -> None:
        for number in range(1000):
            source = f"name: w{worker}\ndescription: Number {number}.\nsteps:\n{steps}"
            try:
                request = task_sequence_service_pb2.CreateTaskSequenceRequest(source=source)
                confirmed.append((await stub.CreateTaskSequence(request)).task_sequence.name)
                if number == 4:
                    enough.set()
            except grpc.aio.AioRpcError:
                return

    for _ in range(2):
        options = ("run", "--data-dir", str(tmp_path), "--listen", "localhost:0")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fleetcast_catalog", *options, stdout=asyncio.subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            port = int((await process.stdout.readline()).split()[-1])
            credentials = authority.issue_credentials(Identity.of(Role.ADMINISTRATOR, "ada"))
            async with open_channel(f"localhost:{port}", credentials) as channel:
                stub = TaskSequenceServiceStub(channel)
                enough.clear()
                workers = [asyncio.create_task(creating(stub, worker)) for worker in range(4)]
                await enough.wait()
                process.kill()
                await asyncio.gather(*workers)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
    async with serving_sequences(tmp_path, authority) as sequences:
        names = await sequences.names(page_size=1000)
        assert set(confirmed) <= set(names)
        for name in names:
            source = await sequences.source(name)
            assert name == f"taskSequences/{parse(source).name}@{digest(parse(source))}"


async def test_an_error_says_nothing_of_a_secret_default(sequences: Sequences) -> None:
    version = await sequences.made("name: s\nvariables: {key: {secret: true, default: geheim}}\n" + JOIN.split("\n")[1])
    assert "geheim" not in str(version)
    assert version.variables[0].has_default
    assert b"geheim" in canonical(parse(await sequences.source(version.name)))


async def test_a_wrong_field_is_named(sequences: Sequences) -> None:
    for call, field in (
        (sequences.create(JOIN, source_file="a\nb"), "source_file"),
        (sequences.get("images/x"), "name"),
        (sequences.page(task_sequence="A B"), "task_sequence"),
        (sequences.hold("taskSequences/x", ""), "holder"),
        (sequences.delete("taskSequences/x", "no uuid"), "request_id"),
    ):
        with pytest.raises(FleetcastError) as raised:
            await call
        assert isinstance(raised.value, InvalidArgumentError)
        assert raised.value.field == field
