from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from fleetcast_agent.sequence.disks.files import inside
from fleetcast_agent.sequence.errors import StepError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

parts = st.lists(st.sampled_from(["a", "b", "up", "out", "loop", "..", ".", "down"]), max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts)
def test_no_path_leads_out(tmp_path: Path, names: list[str]) -> None:
    root = tmp_path / "root"
    if not root.exists():
        (root / "a/b").mkdir(parents=True)
        (root / "up").symlink_to("../../..")
        (root / "out").symlink_to("/etc")
        (root / "loop").symlink_to("loop")
        (root / "a/down").symlink_to("b/../../a")
    with contextlib.suppress(StepError):
        assert inside(root, "/".join(names)).resolve().is_relative_to(root.resolve())


@pytest.mark.parametrize(("path", "reason"), [("a/../../x", "leaves the volume"), ("loop", "in circles")])
def test_paths_that_lead_nowhere_say_so(tmp_path: Path, path: str, reason: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(StepError, match=reason):
        inside(tmp_path, path)


def test_an_absolute_link_leads_into_the_volume(tmp_path: Path) -> None:
    (tmp_path / "etc").symlink_to("/usr/etc")
    assert inside(tmp_path, "/etc/hostname") == tmp_path / "usr/etc/hostname"


def test_names_are_found_in_any_case_where_the_volume_ignores_it(tmp_path: Path) -> None:
    (tmp_path / "Windows" / "System32").mkdir(parents=True)
    assert inside(tmp_path, "windows/SYSTEM32/New", ignore_case=True) == tmp_path / "Windows/System32/New"
    assert inside(tmp_path, "windows") == tmp_path / "windows"
