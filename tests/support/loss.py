"""Rules that lose packets in the network lab's switch, as text for nft."""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from tests.support.lossy import Bursts

TABLE = "lab"

PATTERN_PACKETS = 1 << 20
"""Packets after which a pattern of bursts repeats: 1.4 GiB of full datagrams, more than a bench file."""

_RANDOM_STEPS = 1_000_000


@dataclass(frozen=True)
class Loss:
    """What one host loses of the datagrams sent to it."""

    fraction: float = 0.0
    """Share lost, each packet by itself."""
    bursts: Bursts | None = None
    """Losses in runs. The kernel may have no netem, so the runs are drawn here from `seed` and matched by a counter."""
    seed: int = 1
    tcp: bool = False
    """Lose TCP segments, too; else only UDP."""


def ruleset(loss_of_port: Mapping[str, Loss]) -> str:
    """Returns a ruleset that replaces the lab's table: losses by the switch port that leads to the host."""
    rules = [line for port, loss in loss_of_port.items() for line in _rules(port, loss)]
    return "\n".join(
        [
            f"table bridge {TABLE} {{}}",
            f"delete table bridge {TABLE}",
            f"table bridge {TABLE} {{",
            "chain forward {",
            "type filter hook forward priority 0;",
            *rules,
            "}",
            "}",
            "",
        ]
    )


def _rules(port: str, loss: Loss) -> list[str]:
    protocols = "{ tcp, udp }" if loss.tcp else "udp"
    match = f'oifname "{port}" meta l4proto {protocols} numgen'
    verdict = f'counter drop comment "{port}"'
    rules = []
    if loss.fraction > 0:
        rules.append(f"{match} random mod {_RANDOM_STEPS} <= {round(loss.fraction * _RANDOM_STEPS) - 1} {verdict}")
    if loss.bursts is not None:
        runs = loss.bursts.runs(Random(loss.seed), PATTERN_PACKETS)
        elements = ", ".join(f"{run.start}-{run.stop - 1}" if len(run) > 1 else f"{run.start}" for run in runs)
        rules.append(f"{match} inc mod {PATTERN_PACKETS} {{ {elements} }} {verdict}")
    return rules
