from __future__ import annotations

import pytest
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.unattend import Unattend, hidden_password

GIVEN = b"""<?xml version="1.0" encoding="utf-8"?>
<unattend xmlns="urn:schemas-microsoft-com:unattend" xmlns:wcm="http://schemas.microsoft.com/WMIConfig/2002/State">
  <settings pass="specialize">
    <component name="Microsoft-Windows-Shell-Setup" processorArchitecture="amd64" language="neutral">
      <ComputerName>old</ComputerName>
      <CopyProfile>true</CopyProfile>
    </component>
    <component name="Microsoft-Windows-Shell-Setup" processorArchitecture="arm64">
      <ComputerName>arm</ComputerName>
    </component>
  </settings>
  <settings pass="oobeSystem">
    <component name="Other" processorArchitecture="amd64"><List><Item wcm:action="add"/></List></component>
  </settings>
</unattend>
"""


def test_a_given_file_is_merged_and_keeps_the_rest() -> None:
    answers = Unattend(GIVEN, "amd64")
    answers.set("specialize", "Microsoft-Windows-Shell-Setup", {"ComputerName": "new & <own>", "TimeZone": ""})
    text = answers.to_bytes().decode()
    assert "<ComputerName>new &amp; &lt;own&gt;</ComputerName>" in text
    assert "<CopyProfile>true</CopyProfile>" in text
    assert "<ComputerName>arm</ComputerName>" in text
    assert 'wcm:action="add"' in text
    assert "TimeZone" not in text
    assert text.count('pass="specialize"') == 1


def test_merging_twice_changes_nothing_more() -> None:
    once = Unattend(GIVEN, "amd64")
    once.set("specialize", "X", {"A/B": "1"})
    twice = Unattend(once.to_bytes(), "amd64")
    twice.set("specialize", "X", {"A/B": "1"})
    assert twice.to_bytes() == once.to_bytes()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<unattend/>", "must be an <unattend>"),
        (b"not xml", "is not XML"),
        (
            b'<!DOCTYPE x [<!ENTITY a "b">]><unattend xmlns="urn:schemas-microsoft-com:unattend">&a;</unattend>',
            "document type",
        ),
    ],
)
def test_what_is_no_answer_file_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(StepError, match=reason):
        Unattend(content, "amd64")


def test_a_password_is_not_in_the_file_as_it_is() -> None:
    assert hidden_password("pw", "AdministratorPassword") == (
        "cAB3AEEAZABtAGkAbgBpAHMAdAByAGEAdABvAHIAUABhAHMAcwB3AG8AcgBkAA=="
    )
