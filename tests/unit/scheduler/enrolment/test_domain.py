from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from fleetcast_kit.errors import AlreadyExistsError, InvalidArgumentError, ResourceExhaustedError
from fleetcast_kit.identity.peer import Role
from fleetcast_scheduler.enrolment.domain import (
    MAX_USES,
    TokenRecord,
    certified_names,
    check_repeated,
    check_room,
    checked_lifetime,
    printable,
    refusal,
)

NOW = datetime(2026, 12, 1, 19, 0, tzinfo=UTC)
TOKEN = TokenRecord(
    id="k3f9qx",
    role=Role.MACHINE,
    uses=3,
    used_count=3,
    create_time=NOW,
    expire_time=NOW + timedelta(hours=24),
    revoke_time=None,
    creator="administrators/anna",
    root_pem=b"",
)


@pytest.mark.parametrize("uses", [0, -1, MAX_USES + 1])
def test_a_token_has_a_number_of_uses_that_can_be(uses: int) -> None:
    with pytest.raises(InvalidArgumentError, match=f"uses is {uses}: choose 1 to 1,000,000"):
        checked_lifetime(uses, timedelta(hours=1))


@pytest.mark.parametrize("lifetime", [timedelta(), timedelta(milliseconds=999), timedelta(days=366)])
def test_a_token_lives_a_second_at_least_and_a_year_at_most(lifetime: timedelta) -> None:
    with pytest.raises(InvalidArgumentError, match="choose 1s to 365d"):
        checked_lifetime(1, lifetime)


def test_a_lifetime_has_whole_seconds() -> None:
    assert checked_lifetime(1, timedelta(seconds=90.7)) == timedelta(seconds=90)


def test_a_token_that_no_longer_works_says_why_and_what_to_do() -> None:
    assert str(refusal(TOKEN, NOW)) == (
        "this enrolment token is used up (3 of 3): make a new one with: fleetcast enrolment-token create"
    )
    assert "expired at 2026-12-02 19:00 UTC" in str(refusal(TOKEN, NOW + timedelta(hours=24)))
    revoked = replace(TOKEN, revoke_time=NOW + timedelta(minutes=5))
    assert "revoked at 2026-12-01 19:05 UTC" in str(refusal(revoked, NOW + timedelta(days=9)))


def test_there_is_room_for_one_more_token_until_the_limit() -> None:
    check_room(255, 256)
    with pytest.raises(ResourceExhaustedError, match="256 enrolment tokens are in use: revoke some"):
        check_room(256, 256)


def test_a_repeated_request_must_want_the_same_token() -> None:
    later = replace(TOKEN, create_time=NOW + timedelta(hours=1), expire_time=NOW + timedelta(hours=25))
    check_repeated(TOKEN, later, "id")
    with pytest.raises(AlreadyExistsError, match="use a new one"):
        check_repeated(TOKEN, replace(later, uses=4), "id")


def test_a_machine_gets_no_names_and_who_serves_needs_some() -> None:
    assert certified_names(Role.MACHINE, ["pc1"]) == ()
    assert certified_names(Role.SENDER, ["10.0.0.5", "s1", "s1"]) == ("10.0.0.5", "s1")
    with pytest.raises(InvalidArgumentError, match="a service needs 1 to 64 names"):
        certified_names(Role.SERVICE, [])


def test_a_name_for_people_has_only_what_can_be_printed() -> None:
    assert printable("pc\x1b[31m1\n") == "pc[31m1"
    assert len(printable("x" * 1000)) == 255
