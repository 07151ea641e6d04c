"""Which variables of a deployment are hidden: those that its task sequence declares as secret."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache

from fleetcast_sequence import HIDDEN, SHORTEST_MASK, SequenceError, from_canonical
from fleetcast_sequence.expression import is_template

from fleetcast_scheduler.deployments.domain.deployment import Deployment
from fleetcast_scheduler.deployments.domain.planning import PlannedRun
from fleetcast_scheduler.machines.domain.fleet import Fleet

_logger = logging.getLogger(__name__)


def public_variables(deployment: Deployment) -> dict[str, str]:
    """Returns the variables of a deployment with `***` for the values of secret ones."""
    canonical_form = deployment.pinned.task_sequence
    secret = _secret_names(canonical_form) if canonical_form else frozenset()
    return {name: HIDDEN if secret is None or name in secret else value for name, value in deployment.variables.items()}


def short_secrets(deployment: Deployment, fleet: Fleet, planned: Sequence[PlannedRun]) -> list[str]:
    """Returns a sentence for each secret variable with a value that is too short to be hidden in logs."""
    canonical_form = deployment.pinned.task_sequence
    return [
        f"the value of the secret variable {name} {where} has fewer than {SHORTEST_MASK} characters: it is not hidden "
        "where it stands inside other text, in logs for instance"
        for name in sorted((_secret_names(canonical_form) if canonical_form else None) or ())
        if (where := _short_value(deployment, fleet, planned, name))
    ]


def _short_value(deployment: Deployment, fleet: Fleet, planned: Sequence[PlannedRun], name: str) -> str:
    """Returns where a variable has a value that is too short; empty if nowhere."""
    if name in deployment.variables:
        return "of the deployment" if _is_short(deployment.variables[name]) else ""
    found = []
    for one in planned:
        given = fleet.variables(one.machine)
        value = given["machine"].get(name, given["collection"].get(name, ""))
        if one.targeted and _is_short(value):
            found.append(one.display_name or one.machine)
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"of {found[0]}{more}" if found else ""


def _is_short(value: str) -> bool:
    return 0 < len(value) < SHORTEST_MASK and not is_template(value)


@lru_cache(maxsize=64)
def _secret_names(canonical_form: bytes) -> frozenset[str] | None:
    """Returns the names of a sequence's secret variables; None if it cannot be read here."""
    try:
        sequence = from_canonical(canonical_form)
    except (SequenceError, ValueError) as error:  # a form of a newer version of the program, perhaps
        _logger.warning("a task sequence cannot be read, so all values of its variables are hidden: %s", error)
        return None
    return frozenset(name for name, variable in sequence.variables.items() if variable.secret)
