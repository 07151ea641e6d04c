import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from fleetcast_kit.errors import PermissionDeniedError
from fleetcast_kit.identity.authority import CertificateAuthority
from fleetcast_kit.identity.grants import check_upload_grant, issue_upload_grant
from hypothesis import given
from hypothesis import strategies as st

AUTHORITY = CertificateAuthority.create()
NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
MACHINE = "machines/ab12"
GRANT = issue_upload_grant(
    AUTHORITY, machine=MACHINE, images=["user-state", "images/reference"], lifetime=timedelta(hours=1), now=NOW
)


def check(
    grant: str = GRANT,
    *,
    machine: str = MACHINE,
    image: str = "user-state",
    now: datetime = NOW,
    authority: CertificateAuthority = AUTHORITY,
) -> None:
    check_upload_grant(grant, authority.certificate, machine=machine, image=image, now=now)


def refusal(grant: str = GRANT, *, machine: str = MACHINE, image: str = "user-state", now: datetime = NOW) -> str:
    with pytest.raises(PermissionDeniedError) as raised:
        check(grant, machine=machine, image=image, now=now)
    assert raised.value.reason == "UPLOAD_NOT_GRANTED"
    return raised.value.message


def test_the_machine_may_upload_what_its_grant_names_until_it_expires() -> None:
    check()
    check(image="reference")
    check(now=NOW + timedelta(minutes=59, seconds=59))


def test_a_grant_says_whose_the_versions_will_be() -> None:
    grant = issue_upload_grant(
        AUTHORITY,
        machine=MACHINE,
        images=["user-state", "reference"],
        owned=["images/user-state", "elsewhere"],
        lifetime=timedelta(hours=1),
        now=NOW,
    )
    answers = [
        check_upload_grant(grant, AUTHORITY.certificate, machine=MACHINE, image=image, now=NOW)
        for image in ("user-state", "reference")
    ]
    assert answers == [True, False]
    assert not check_upload_grant(GRANT, AUTHORITY.certificate, machine=MACHINE, image="user-state", now=NOW)


def test_a_machine_without_a_grant_may_upload_nothing() -> None:
    assert "machines/ab12 may not upload user-state: a machine needs the grant" in refusal("")


def test_another_machines_grant_is_refused() -> None:
    message = refusal(machine="machines/cd34")
    assert message == "machines/cd34 shows an upload grant that was issued to machines/ab12"


def test_an_expired_grant_is_refused_with_its_time() -> None:
    assert "expired at 2026-12-01 13:00:00 UTC" in refusal(now=NOW + timedelta(hours=1))


def test_a_grant_for_other_images_is_refused() -> None:
    assert "is for reference, user-state, not for windows-11" in refusal(image="windows-11")


def test_a_grant_of_another_installation_is_refused() -> None:
    with pytest.raises(PermissionDeniedError, match="of another installation"):
        check(authority=CertificateAuthority.create())


def test_a_grant_whose_content_was_changed_is_refused() -> None:
    prefix, payload, signature = GRANT.split(".")
    content = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    content["images"].append("windows-11")
    forged = base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
    assert "damaged" in refusal(f"{prefix}.{forged}.{signature}", image="windows-11")


def test_a_signature_for_another_purpose_is_no_grant() -> None:
    prefix, payload, _ = GRANT.split(".")
    content = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    other = base64.urlsafe_b64encode(AUTHORITY.sign("something else", content)).decode().rstrip("=")
    assert "damaged" in refusal(f"{prefix}.{payload}.{other}")


def test_no_images_need_no_grant() -> None:
    assert issue_upload_grant(AUTHORITY, machine=MACHINE, images=[], lifetime=timedelta(hours=1)) == ""


DAMAGED = st.integers(0, len(GRANT) - 1).map(lambda cut: GRANT[:cut] + "A" + GRANT[cut + 2 :])


@given(st.text(min_size=1) | DAMAGED.filter(lambda shown: shown != GRANT))  # a grant may happen to end with an A
def test_whatever_a_machine_shows_is_refused_and_nothing_else_happens(shown: str) -> None:
    refusal(shown)
