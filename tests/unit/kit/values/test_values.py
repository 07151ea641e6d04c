"""Durations, rates, pages and addresses as people and programs write them."""

from datetime import timedelta
from functools import partial

import pytest
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.rpc.paging import decode_page_token, encode_page_token, page_size
from fleetcast_kit.values.addresses import join_address, served_names, split_address
from fleetcast_kit.values.durations import format_duration, parse_duration
from fleetcast_kit.values.rates import format_rate, parse_rate
from hypothesis import given
from hypothesis import strategies as st

from tests.support.refusals import takes_or_says_why


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90s", 90),
        ("15m", 900),
        ("2h", 7200),
        ("1d", 86400),
        ("1h30m", 5400),
        (" 1D 2H ", 93600),
        ("0.5s", 0.5),
    ],
)
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "s", "5", "-5s", "5x", "1h 1d", "1.5h", "99999999999999999999d", "\u0663s1"])
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_duration(text, field="start_delay")
    assert caught.value.field == "start_delay"
    assert repr(text) in caught.value.message


@given(st.integers(0, 100 * 365 * 86400))
def test_a_written_duration_is_read_back(seconds: int) -> None:
    assert parse_duration(format_duration(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


def test_a_negative_duration_is_written_with_its_sign() -> None:
    assert format_duration(timedelta(seconds=-90)) == "-1m30s"


@given(st.text())
def test_no_text_raises_anything_but_the_errors_of_the_kit(text: str) -> None:
    for parse in (parse_duration, parse_rate, split_address, decode_page_token):
        assert takes_or_says_why(partial(parse, text))


@pytest.mark.parametrize(
    ("text", "bits_per_second"),
    [("500000", 500_000), ("100M", 10**8), ("1G", 10**9), ("2.5g", 25 * 10**8), ("10 Gbit/s", 10**10), ("9kbps", 9000)],
)
def test_rates_are_read_as_people_write_them(text: str, bits_per_second: int) -> None:
    assert parse_rate(text) == bits_per_second


@pytest.mark.parametrize("text", ["", "fast", "-1M", "0", "0.1", "1P", "5000T", "1e9", "100MB", "1" * 5000])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        parse_rate(text)


@pytest.mark.parametrize(
    ("bits_per_second", "text"),
    [(0, "0 bit/s"), (999, "999 bit/s"), (941_000_000, "941 Mbit/s"), (999_900, "1 Mbit/s"), (2.5e9, "2.5 Gbit/s")],
)
def test_rates_are_written_with_three_digits(bits_per_second: float, text: str) -> None:
    assert format_rate(bits_per_second) == text


def test_page_sizes_have_a_default_and_a_maximum() -> None:
    assert [page_size(size) for size in (0, 1, 1000, 5000)] == [100, 1, 1000, 1000]
    with pytest.raises(InvalidArgumentError, match="page_size is -1"):
        page_size(-1)


@given(st.floats(allow_nan=False, allow_infinity=False), st.text(), st.integers())
def test_page_tokens_carry_the_position_exactly(time: float, name: str, number: int) -> None:
    token = encode_page_token([time, name, number])
    assert decode_page_token(token, float, str, int) == (time, name, number)
    with pytest.raises(InvalidArgumentError):
        decode_page_token(token, str, str, int)


def test_no_page_token_is_the_first_page() -> None:
    assert decode_page_token("", str) is None


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("server", ("server", 7443)),
        ("server:1", ("server", 1)),
        ("10.0.0.1:65535", ("10.0.0.1", 65535)),
        ("[::1]:80", ("::1", 80)),
        ("[fe80::1]", ("fe80::1", 7443)),
        ("::1", ("::1", 7443)),
        (" server:0 ", ("server", 0)),
    ],
)
def test_addresses_are_split(text: str, address: tuple[str, int]) -> None:
    assert split_address(text) == address
    assert split_address(join_address(*address)) == address


@pytest.mark.parametrize(
    "text",
    ["", ":1", "a:", "a:b", "a:65536", "a:-1", "a:1:2", "[::1", "[a]:1", "[::1]x", "http://a:1", "a b:1", "a:\u0661"],
)
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="write HOST:PORT, like server:7443"):
        split_address(text, field="server")


def test_a_server_is_known_by_its_own_names_and_what_is_advertised() -> None:
    names = served_names("10.0.0.5:7443", ["Images.LAN", "images.lan:443", "2001:DB8::0:1"])
    assert {"localhost", "127.0.0.1", "::1", "10.0.0.5", "images.lan", "2001:db8::1"} <= set(names)
    assert list(names) == sorted(set(names))


def test_a_server_that_listens_everywhere_is_known_by_every_address() -> None:
    names = served_names("0.0.0.0:0")
    assert not any(name.startswith("0.") for name in names)
    assert "127.0.0.1" in names


def test_a_host_with_an_unusable_name_is_known_by_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Anna's computer")
    assert served_names("localhost:0") == ("127.0.0.1", "::1", "localhost")
