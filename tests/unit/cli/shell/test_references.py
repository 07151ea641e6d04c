import pytest
from fleetcast_cli.shell.references import identifier, image_reference, resource, series_name, short_image
from fleetcast_kit.errors import InvalidArgumentError

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("win11", "images/win11"),
        ("images/win11", "images/win11"),
        (f"win11@sha256:{DIGEST}", f"images/win11@sha256:{DIGEST}"),
        (f"win11@{DIGEST[:12]}", f"images/win11@sha256:{DIGEST[:12]}"),
        (f"images/a.b-c_d@sha256:{DIGEST.upper()}".replace("SHA", "sha"), f"images/a.b-c_d@sha256:{DIGEST}"),
    ],
)
def test_an_image_is_named_with_or_without_its_digest(text: str, name: str) -> None:
    assert image_reference(text) == name


@pytest.mark.parametrize(
    "text", ["", "@sha256:abcd", "win 11", "win11@", "win11@md5:abcd", "win11@sha256:xyz", "a" * 64]
)
def test_what_is_no_image_is_refused_with_its_value(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        image_reference(text)


def test_a_digest_may_be_shortened_to_four_digits_and_no_further() -> None:
    assert image_reference("win11@sha256:abcd") == "images/win11@sha256:abcd"
    with pytest.raises(InvalidArgumentError, match="first 4"):
        image_reference("win11@sha256:abc")


def test_a_series_name_is_checked_as_the_server_does() -> None:
    assert series_name("Win11.pro_x-64") == "Win11.pro_x-64"
    for text in ("", ".hidden", "a/b", "ä", "a" * 64):
        with pytest.raises(InvalidArgumentError):
            series_name(text)


def test_resources_are_named_with_or_without_their_collection() -> None:
    assert resource("sessions", "20261201-1") == resource("sessions", "sessions/20261201-1") == "sessions/20261201-1"
    for text in ("", "a b", "machines/x", "../x"):
        with pytest.raises(InvalidArgumentError):
            resource("sessions", text)


def test_names_are_shortened_for_people_so_that_they_can_be_typed_again() -> None:
    shown = short_image(f"images/win11@sha256:{DIGEST}")
    assert shown == "win11@sha256:0123456789ab"
    assert image_reference(shown) == "images/win11@sha256:0123456789ab"
    assert short_image("images/win11@importing-17") == "win11@importing-17"
    assert identifier("sessions/s/participants/m") == "m"
