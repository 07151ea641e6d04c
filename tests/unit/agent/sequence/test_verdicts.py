from __future__ import annotations

import pytest
from fleetcast_agent.sequence.saving.uncapturable import excludes
from fleetcast_agent.sequence.verdicts import judge

EXCLUDED = 'WARNING: Excluding unsupported file or directory\n         "/salary" from capture\n'


@pytest.mark.parametrize(
    ("command", "errors", "lost"),
    [
        (["tar", "--create"], "tar: a: Warning: Cannot fgetxattr: Argument list too long\n", 1),
        (["tar", "--create"], "tar: run/s: socket ignored\n", 0),
        (["tar", "--extract"], "tar: a: Warning: Cannot setxattrat: Operation not supported\n", 1),
        (["wimlib-imagex", "capture", "/dev/loop0"], EXCLUDED, 1),
        (["wimlib-imagex", "apply", "x"], "[WARNING] Ignoring EFS-encrypted data of 2 files\n", 1),
        (["wimlib-imagex", "apply", "x"], "[WARNING] Failed to extract security descriptor of a\n", 1),
        (["mkfs.fat", "-F"], "mkfs.fat: Warning: lowercase labels might not work properly on some systems\n", 0),
        (["run-of-somebody", "x"], "WARNING: anything\n", 0),
    ],
)
def test_a_warning_that_something_is_missing_makes_a_failure(command: list[str], errors: str, lost: int) -> None:
    assert len(judge(command, "", errors).lost) == lost


def test_a_warning_is_repeated_with_the_line_that_goes_on_with_it() -> None:
    (said,) = judge(["wimlib-imagex", "capture"], "", EXCLUDED).lost
    assert said == 'WARNING: Excluding unsupported file or directory "/salary" from capture'


def test_a_program_that_says_nothing_has_lost_nothing() -> None:
    assert judge(["tar", "--create"], "", "") == judge(["ls"], "", "")


def test_what_a_file_system_cannot_hold_of_a_wim_is_a_remark() -> None:
    verdict = judge(["wimlib-imagex", "apply", "x"], "", "[WARNING] Ignoring named data streams of 2 files\n")
    assert (verdict.lost, len(verdict.remarks)) == ((), 1)


@pytest.mark.parametrize(
    ("pattern", "path", "left_out"),
    [
        ("/Users/*/OneDrive", "/Users/anna/OneDrive/a/b", True),
        ("/Users/*/OneDrive", "/Users/anna/b/OneDrive", False),
        ("/Users/*", "/Users", False),
        ("*.tmp", "/a/b.tmp", True),
        ("*.tmp", "/a/b.tmpx", False),
        (r"\Users\anna", "/Users/anna/x", True),
    ],
)
def test_patterns_leave_out_what_wimlib_leaves_out(pattern: str, path: str, left_out: bool) -> None:
    assert excludes([pattern], path) is left_out
