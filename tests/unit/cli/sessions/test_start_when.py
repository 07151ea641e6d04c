from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from fleetcast.scheduler.v1.session_pb2 import StartRules
from fleetcast_cli.sessions.policies import format_start_rules
from fleetcast_cli.sessions.start_when import parse_start_when
from fleetcast_cli.shell.instants import Clock
from fleetcast_kit.errors import InvalidArgumentError
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from tests.support.refusals import takes_or_says_why

CLOCK = Clock(datetime(2026, 11, 23, 3, 40, tzinfo=UTC), ZoneInfo("Europe/Berlin"))
ANY, ALL = StartRules.MATCH_ANY, StartRules.MATCH_ALL
AT = Timestamp(seconds=int(datetime(2026, 12, 1, 1, tzinfo=UTC).timestamp()))


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("clients>=30 or delay 10m", StartRules(min_clients=30, start_delay=Duration(seconds=600), match=ANY)),
        ("all: clients>=20, quiet 2m", StartRules(min_clients=20, quiet_time=Duration(seconds=120), match=ALL)),
        ("any: clients >= 20, manual", StartRules(min_clients=20, manual=True, match=ANY)),
        ("30 machines and at 2026-12-01 02:00", StartRules(min_clients=30, start_time=AT, match=ALL)),
        ("at 2026-12-01 02:00", StartRules(start_time=AT, match=ANY)),
        ("AT 2026-12-01T01:00Z OR Manual", StartRules(start_time=AT, manual=True, match=ANY)),
        ("manual", StartRules(manual=True, match=ANY)),
        ("all: clients>=2 and delay 1h30m", StartRules(min_clients=2, start_delay=Duration(seconds=5400), match=ALL)),
        ("clients>=2 && quiet 1m", StartRules(min_clients=2, quiet_time=Duration(seconds=60), match=ALL)),
        ("first machine", StartRules()),
    ],
)
def test_start_rules_are_read_as_people_write_them(text: str, rules: StartRules) -> None:
    assert parse_start_when(text, CLOCK) == rules


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("clients>=30 or delay 10m and quiet 2m", "mixes 'and' and 'or'"),
        ("any: clients>=3 and manual", "mixes 'and' and 'or'"),
        ("all: clients>=3 or manual", "mixes 'and' and 'or'"),
        ("clients>=3, manual", "leaves open"),
        ("clients>=3 or clients>=4", "has the rule 'clients' twice"),
        ("clients>=0", "the number is 1 to 100000"),
        ("clients>=200000", "the number is 1 to 100000"),
        ("clients", "'clients' is not a start rule"),
        ("(clients>=3 or manual)", "parentheses cannot be used"),
        ("delay soon", "'soon' is not a duration"),
        ("at noon", "'noon' is not a time"),
        ("at 2020-01-01 00:00", "is in the past"),
        ("clients>=3 or", "is not a start rule"),
        ("", "is not a start rule"),
        ("all:", "is not a start rule"),
        ("start now please", "'start now please' is not a start rule"),
    ],
)
def test_what_is_no_start_rule_is_refused_with_its_value(text: str, complaint: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_start_when(text, CLOCK)
    assert complaint in caught.value.message


@given(
    st.dictionaries(
        st.sampled_from(["clients>=7", "delay 5m", "quiet 30s", "manual", "at 2026-12-01 02:00"]), st.none(), min_size=1
    ),
    st.sampled_from([" or ", " and "]),
)
def test_any_rules_with_one_joint_are_read(rules: dict[str, None], joint: str) -> None:
    parsed = parse_start_when(joint.join(rules), CLOCK)
    assert parsed.match == (ALL if joint == " and " and len(rules) > 1 else ANY)
    assert bool(parsed.min_clients) == ("clients>=7" in rules)
    assert parsed.HasField("start_time") == ("at 2026-12-01 02:00" in rules)
    assert format_start_rules(parsed).count(joint) == len(rules) - 1


@given(st.text() | st.from_regex(r"((any|all): )?[a-z>=0-9 ,:-]{0,30}( and| or)?[a-z ]{0,8}"))
def test_no_text_raises_anything_but_the_error_of_the_kit(text: str) -> None:
    assert takes_or_says_why(lambda: parse_start_when(text, CLOCK))
