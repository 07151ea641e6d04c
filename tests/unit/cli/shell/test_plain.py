import json

import pytest
from fleetcast.catalog.v1 import catalog_service_pb2, image_pb2
from fleetcast.scheduler.v1 import machine_service_pb2, session_pb2
from fleetcast_cli.shell.plain import short_name, to_plain, write_json


def test_numbers_stay_numbers_and_every_field_is_there() -> None:
    plain = to_plain(image_pb2.Image(name="images/win11@sha256:ab", size_bytes=2**40))
    assert plain["size_bytes"] == 2**40
    assert plain["zero_chunk_count"] == 0
    assert set(plain) == {field.name for field in image_pb2.Image.DESCRIPTOR.fields}


def test_enumerators_are_short_names() -> None:
    image = image_pb2.Image(state=image_pb2.Image.STATE_READY, format=image_pb2.IMAGE_FORMAT_QCOW2)
    assert (to_plain(image)["state"], to_plain(image)["format"]) == ("ready", "qcow2")
    assert to_plain(image_pb2.Image())["state"] == ""
    assert short_name(image, "format") == "qcow2"


def test_an_enumerator_of_a_newer_server_is_its_number() -> None:
    newer = image_pb2.Image.FromString(b"\x20\x63")
    assert to_plain(newer)["state"] == "99"


def test_times_are_rfc_3339_and_absent_ones_null() -> None:
    image = image_pb2.Image()
    image.create_time.FromJsonString("2026-12-01T02:00:00.5Z")
    plain = to_plain(image)
    assert plain["create_time"] == "2026-12-01T02:00:00.500000Z"
    assert plain["ready_time"] is None


def test_durations_say_their_unit() -> None:
    rules = session_pb2.StartRules(min_clients=3)
    assert to_plain(rules)["start_delay_seconds"] is None
    assert "start_delay" not in to_plain(rules)
    rules.start_delay.FromJsonString("90.5s")
    assert to_plain(rules)["start_delay_seconds"] == 90.5


def test_nested_messages_and_bytes_are_plain_too(capsys: pytest.CaptureFixture[str]) -> None:
    image = image_pb2.Image(wim_images=[image_pb2.WimImage(index=1, languages=["de-DE"])])
    plain = to_plain(image)
    assert isinstance(plain["wim_images"], list)
    assert plain["wim_images"][0]["languages"] == ["de-DE"]  # type: ignore[index,call-overload]
    assert to_plain(catalog_service_pb2.ImportImageRequest(data=b"\x01\xff"))["data"] == "01ff"
    write_json(plain, lines=True)
    assert json.loads(capsys.readouterr().out) == plain


def test_maps_are_objects() -> None:
    machine = machine_service_pb2.Machine(variables={"room": "5", "edition": "pro"})
    assert to_plain(machine)["variables"] == {"edition": "pro", "room": "5"}
    assert to_plain(machine_service_pb2.Machine())["variables"] == {}


def test_only_an_enumeration_has_a_short_name() -> None:
    with pytest.raises(TypeError):
        short_name(image_pb2.Image(), "name")
