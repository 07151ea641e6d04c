"""How many examples a property test draws: few in each run of the tests, many more in `make fuzz`."""

from hypothesis import settings

_USUAL = 100


def examples(count: int) -> int:
    """Returns `count`, or as many times more as the chosen profile draws more than usual."""
    assert settings.default is not None
    return max(1, count * settings.default.max_examples // _USUAL)
