"""Which variables of a deployment nobody is shown: those that its task sequence declares as secret."""

from __future__ import annotations

import logging
from functools import lru_cache

from fleetcast_sequence import HIDDEN, SequenceError, from_canonical

from fleetcast_scheduler.deployments.domain.deployment import Deployment

_logger = logging.getLogger(__name__)


def public_variables(deployment: Deployment) -> dict[str, str]:
    """Returns the variables of a deployment with `***` for the values of secret ones."""
    canonical_form = deployment.pinned.task_sequence
    secret = _secret_names(canonical_form) if canonical_form else frozenset()
    return {name: HIDDEN if secret is None or name in secret else value for name, value in deployment.variables.items()}


@lru_cache(maxsize=64)
def _secret_names(canonical_form: bytes) -> frozenset[str] | None:
    """Returns the names of a sequence's secret variables; None if it cannot be read here."""
    try:
        sequence = from_canonical(canonical_form)
    except (SequenceError, ValueError) as error:  # a form of a newer version of the program, perhaps
        _logger.warning("a task sequence cannot be read, so all values of its variables are hidden: %s", error)
        return None
    return frozenset(name for name, variable in sequence.variables.items() if variable.secret)
