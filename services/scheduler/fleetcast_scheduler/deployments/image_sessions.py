"""The sessions that send the images of deployments: the first machine that needs an image opens one."""

from __future__ import annotations

from collections.abc import Callable

from fleetcast_kit.errors import FailedPreconditionError, InvalidArgumentError

from fleetcast_scheduler.deployments.domain.phases import awaited
from fleetcast_scheduler.deployments.domain.run import Run
from fleetcast_scheduler.deployments.pump import RunPump
from fleetcast_scheduler.sessions.domain.operations import SessionEdit
from fleetcast_scheduler.sessions.domain.participant import Joiner
from fleetcast_scheduler.sessions.domain.session import Session
from fleetcast_scheduler.sessions.mailbox import SessionMailbox
from fleetcast_scheduler.sessions.sessions import Sessions


class DeploymentSessions:
    """Brings machines that run deployments into sessions."""

    def __init__(self, pump: RunPump, sessions: Sessions, restored: Callable[[Run], list[str]]) -> None:
        """Takes who returns the images whose newest version a run puts back."""
        self._pump = pump
        self._sessions = sessions
        self._restored = restored

    def check(self, machine: str, session: Session) -> None:
        """Lets a machine that runs the deployment now join one of its sessions by name, or raises.

        Raises:
            FailedPreconditionError: it does not, or its run does not name the image.
        """
        current = self._pump.ledger.current.get(machine)
        if current is None or current.deployment != session.deployment:
            raise FailedPreconditionError(
                f"{session.name} is for the machines that run {session.deployment}, and {machine} does not",
                reason="RUN_NOT_OPEN",
            )
        self._check_image(current, session.image)

    async def join(self, run: str, image: str, joiner: Joiner) -> SessionMailbox:
        """A machine joins the open session of its deployment for an image, or opens it.

        Raises:
            FailedPreconditionError: the machine does not execute that run now.
            InvalidArgumentError: the run does not need that image.
            NotFoundError: there is no READY version of the image that it puts back.
        """
        current = self._pump.ledger.current.get(joiner.machine)
        if current is None or current.name != run:
            raise FailedPreconditionError(
                f"{joiner.machine} does not run {run} now: attend first, and take what is ordered",
                reason="RUN_NOT_OPEN",
            )
        deployment = self._pump.ledger.deployment_of(current)
        self._check_image(current, image)
        if "@" not in image:
            image = (await self._sessions.resolve(image)).name
        template = deployment.session
        edit = SessionEdit(
            rules=template.rules,
            rate=template.rate,
            admission=template.admission,
            priority=template.priority,
            slow_policy=template.slow_policy,
            site=template.site,
            any_site=template.any_site,
        )
        return await self._sessions.join_deployment(
            deployment.name, image, edit, awaited(deployment), joiner, traceparent=deployment.traceparent
        )

    def _check_image(self, run: Run, image: str) -> None:
        """Makes sure that a run needs an image: it was pinned, or one of its steps puts it back.

        Raises:
            InvalidArgumentError: it does not.
        """
        deployment = self._pump.ledger.deployment_of(run)
        if image in (known.name for known in deployment.pinned.images):
            return
        series = image.removeprefix("images/").partition("@")[0]
        if series not in self._restored(run):
            raise InvalidArgumentError(
                f"{deployment.name} does not deploy {image}: name an image of the order, digest included, or one that "
                "a step restores, by a name that is known before the run",
                field="join.image",
            )
