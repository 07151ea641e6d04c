"""How a service or a sender on a host of its own becomes a part of an installation, and stays one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from fleetcast_kit.errors import FleetcastError, NotFoundError
from fleetcast_kit.identity.credentials import Credentials
from fleetcast_kit.identity.peer import Role
from fleetcast_kit.identity.trust import ServerCredentials
from fleetcast_kit.joining.enrolment import enrol, renew_if_due

_logger = logging.getLogger(__name__)

RENEWAL_SECONDS = 6 * 3600.0
"""How often it is seen whether the certificate is due: four months before it ends."""


async def join_installation(
    scheduler: str, token: str, directory: Path, *, role: Role, display_name: str, names: Sequence[str]
) -> Credentials:
    """Returns the credential in `directory`; if there is none, the one that `token` gives at `scheduler` (HOST:PORT).

    `role` is that of the enrolment token such a process needs: `service` or `sender`. `names` are those by which others
    reach this process. The token is used once, at the first start.

    Raises:
        NotFoundError: there is neither a credential nor a token.
        FleetcastError: as `enrol` does.
    """
    if token and scheduler:
        return await enrol(scheduler, token, directory, display_name, advertised_names=names)
    try:
        return Credentials.load(directory)
    except NotFoundError as error:
        raise NotFoundError(
            f"{error.message}: make a token with `fleetcast enrolment-token create --role {role}`, and give it with "
            "--scheduler HOST:PORT --token TOKEN, or FLEETCAST_TOKEN, to the first start",
            reason="NO_CREDENTIAL",
        ) from error


async def keep_renewed(
    scheduler: str, directory: Path, shown: ServerCredentials, renewed: Callable[[Credentials], None] | None = None
) -> None:
    """Renews the credential in `directory` at `scheduler` whenever that is due, until cancelled.

    The port shows the new one at once. `renewed` is called with it, for what dials with it.
    """
    present = Credentials.load(directory)
    while True:
        try:
            credentials = await renew_if_due(scheduler, directory)
            if credentials != present:
                shown.replace(credentials)
                if renewed is not None:
                    renewed(credentials)
                present = credentials
        except FleetcastError as error:
            _logger.warning("cannot renew the certificate, trying again: %s", error.message)
        await asyncio.sleep(RENEWAL_SECONDS)
