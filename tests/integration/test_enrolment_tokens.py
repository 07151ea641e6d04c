"""Enrolment tokens over a real server: how they are made, listed and kept."""

import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from fleetcast.scheduler.v1 import enrolment_service_pb2, enrolment_service_pb2_grpc
from fleetcast_kit.errors import (
    InvalidArgumentError,
    from_rpc_error,
)
from fleetcast_kit.identity import certificates
from fleetcast_kit.identity.authority import CertificateAuthority
from fleetcast_kit.identity.enrolment_token import EnrolmentToken
from fleetcast_kit.identity.peer import Identity, Role
from fleetcast_kit.joining.enrolment import enrol
from fleetcast_kit.rpc.channel import open_channel
from fleetcast_scheduler.enrolment.domain import MAX_TRUSTED_TOKENS

from tests.support.tokens import create_token, holder_of, list_tokens
from tests.support.trust import serving, serving_enrolment


async def test_a_repeated_request_gets_the_same_token(tmp_path: Path) -> None:
    authority = CertificateAuthority.create()
    request_id = str(uuid.uuid4())
    async with serving_enrolment(tmp_path, authority=authority) as (server, _):
        first = await create_token(server, uses=2, request_id=request_id)
        assert await create_token(server, uses=2, request_id=request_id) == first
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await create_token(server, uses=3, request_id=request_id)
        assert from_rpc_error(caught.value).reason == "REQUEST_ID_REUSED"
    async with serving_enrolment(tmp_path, authority=authority) as (server, _):
        assert await create_token(server, uses=2, request_id=request_id) == first
        await enrol(server.address, first.token, tmp_path / "m", "m")
        assert len(await list_tokens(server)) == 1


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"uses": -1}, "uses"),
        ({"uses": 2**31 - 1}, "uses"),
        ({"lifetime": timedelta(0)}, "lifetime"),
        ({"lifetime": timedelta(days=366)}, "lifetime"),
        ({"role": 99}, "role"),
        ({"request_id": "again"}, "request_id"),
    ],
)
async def test_impossible_tokens_are_refused_by_field(tmp_path: Path, fields: dict[str, Any], field: str) -> None:
    async with serving_enrolment(tmp_path) as (server, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await create_token(server, **fields)
        error = from_rpc_error(caught.value)
        assert isinstance(error, InvalidArgumentError)
        assert error.field == field


async def test_tokens_are_listed_in_pages_newest_first_without_their_texts(tmp_path: Path) -> None:
    async with serving_enrolment(tmp_path) as (server, _):
        made = [(await create_token(server)).enrolment_token.name for _ in range(5)]
        found: list[str] = []
        async with server.dial(Role.ADMINISTRATOR) as channel:
            stub = enrolment_service_pb2_grpc.EnrolmentServiceStub(channel)
            request = enrolment_service_pb2.ListEnrolmentTokensRequest(page_size=2)
            sizes = []
            while True:
                page = await stub.ListEnrolmentTokens(request, timeout=10)
                sizes.append(len(page.enrolment_tokens))
                found += [token.name for token in page.enrolment_tokens]
                if not page.next_page_token:
                    break
                request.page_token = page.next_page_token
        assert sizes == [2, 2, 1]
        assert found == made[::-1]


async def test_unknown_names_and_page_tokens_are_answered_clearly(tmp_path: Path) -> None:
    async with serving_enrolment(tmp_path) as (server, _), server.dial(Role.ADMINISTRATOR) as channel:
        stub = enrolment_service_pb2_grpc.EnrolmentServiceStub(channel)
        cases: list[tuple[Any, Any, str]] = [
            (
                stub.RevokeEnrolmentToken,
                enrolment_service_pb2.RevokeEnrolmentTokenRequest(name="enrolmentTokens/none"),
                "NOT_FOUND",
            ),
            (
                stub.RevokeEnrolmentToken,
                enrolment_service_pb2.RevokeEnrolmentTokenRequest(name="tokens/x/y"),
                "INVALID_ARGUMENT",
            ),
            (
                stub.ListEnrolmentTokens,
                enrolment_service_pb2.ListEnrolmentTokensRequest(page_token="no token"),
                "INVALID_ARGUMENT",
            ),
            (
                stub.ListEnrolmentTokens,
                enrolment_service_pb2.ListEnrolmentTokensRequest(page_size=-1),
                "INVALID_ARGUMENT",
            ),
        ]
        for call, request, code in cases:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(request, timeout=10)
            assert caught.value.code().name == code


async def test_tokens_survive_a_restart_of_the_server(tmp_path: Path) -> None:
    authority = CertificateAuthority.create()
    async with serving_enrolment(tmp_path, authority=authority) as (server, _):
        token = (await create_token(server)).token
    async with serving_enrolment(tmp_path, authority=authority) as (server, _):
        await enrol(server.address, token, tmp_path / "m", "m")


async def test_no_more_tokens_are_made_than_a_handshake_can_name(tmp_path: Path) -> None:
    async with serving_enrolment(tmp_path, max_tokens=3) as (server, enrolment):
        tokens = [await create_token(server) for _ in range(3)]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await create_token(server)
        assert from_rpc_error(caught.value).reason == "TOO_MANY_TOKENS"
        await enrolment.revoke_token(
            tokens[0].enrolment_token.name.partition("/")[2], revoker=Identity.of(Role.ADMINISTRATOR, "test")
        )
        last = await create_token(server)
        await enrol(server.address, last.token, tmp_path / "m", "m")


async def test_handshakes_work_with_as_many_tokens_as_may_be(tmp_path: Path) -> None:
    async with serving() as server:
        now = certificates.now()
        tokens = [EnrolmentToken.create(server.authority.fingerprint) for _ in range(MAX_TRUSTED_TOKENS)]
        server.trust.set_token_roots(
            token.root(not_before=now - timedelta(1), not_after=now + timedelta(1)) for token in tokens
        )
        for credentials in (server.credentials(Role.MACHINE), holder_of(tokens[-1], server.authority)):
            async with open_channel(server.address, credentials) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await enrolment_service_pb2_grpc.EnrolmentServiceStub(channel).Enrol(
                        enrolment_service_pb2.EnrolRequest(), timeout=10
                    )
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
