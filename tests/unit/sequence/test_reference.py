from __future__ import annotations

from pathlib import Path

from fleetcast_sequence import parse, step_types
from fleetcast_sequence.guide import updated

GUIDE = Path(__file__).parents[3] / "docs/guides/task-sequences.md"


def test_the_guide_has_the_reference_of_now() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert updated(text) == text, "run: python -m fleetcast_sequence.guide docs/guides/task-sequences.md"


def test_every_step_type_is_in_the_guide() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert all(f"### {name}\n" in text for name in step_types())


def test_the_example_of_the_guide_is_correct() -> None:
    example = GUIDE.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    assert parse(example).name == "lab-linux"
