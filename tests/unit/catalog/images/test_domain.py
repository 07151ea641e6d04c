from dataclasses import replace
from datetime import UTC, datetime

import pytest
from fleetcast_catalog.images.domain import Image, ImageFormat, ImageName, ImageState, check_series
from fleetcast_kit.errors import FailedPreconditionError, InvalidArgumentError

DIGEST = "sha256:" + "0a" * 32
NOW = datetime(2026, 1, 2, tzinfo=UTC)
READY = Image(1, "win11", DIGEST, ImageState.READY, ImageFormat.WIM, "install.wim", NOW)


@pytest.mark.parametrize("name", ["images/win11", f"images/win11@{DIGEST}", "images/a@importing-" + "0" * 32])
def test_a_name_of_an_image_is_its_parts(name: str) -> None:
    assert str(ImageName.parse(name)) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "win11",
        "images/",
        "images/-a",
        "images/a b",
        "images/" + "a" * 64,
        "images/a@",
        "images/a@sha256:12",
        f"images/a@{DIGEST.upper()}",
        f"sessions/a@{DIGEST}",
        f"images/a@{DIGEST}\n",
    ],
)
def test_what_is_no_name_of_an_image_is_refused_with_its_value(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="is not the name of an image"):
        ImageName.parse(name)


def test_a_series_may_not_have_a_path_in_its_name() -> None:
    with pytest.raises(InvalidArgumentError, match=r"'\.\./x' cannot be the name"):
        check_series("../x", field="image")


def test_an_image_in_use_cannot_be_deleted_and_says_by_whom() -> None:
    READY.check_deletable()
    with pytest.raises(FailedPreconditionError, match="in use by sessions/1, sessions/2, sessions/3 and 1 more") as e:
        replace(READY, holders=tuple(f"sessions/{number}" for number in range(1, 5))).check_deletable()
    assert e.value.reason == "IMAGE_IN_USE"


def test_only_a_ready_image_is_deployable() -> None:
    READY.check_deployable()
    for state in (ImageState.CREATING, ImageState.FAILED):
        with pytest.raises(FailedPreconditionError):
            replace(READY, state=state).check_deployable()


def test_a_verification_decides_between_ready_and_failed() -> None:
    failed = READY.verified(3, NOW)
    assert (failed.state, failed.damaged_chunk_count, failed.verify_time) == (ImageState.FAILED, 3, NOW)
    assert failed.verified(0, NOW).state is ImageState.READY
