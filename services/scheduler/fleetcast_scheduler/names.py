"""Resource names: checked as they come in messages."""

from __future__ import annotations

import base64
import re
import secrets
from datetime import UTC, datetime

from fleetcast_kit.errors import InvalidArgumentError

_MACHINE = re.compile(r"machines/[A-Za-z0-9-]{1,63}")


_COLLECTION = re.compile(r"collections/[A-Za-z0-9][A-Za-z0-9-]{0,62}")


def machine_name(name: str, field: str = "name") -> str:
    """Returns `name` if it can be that of a machine.

    Raises:
        InvalidArgumentError: it cannot.
    """
    if not _MACHINE.fullmatch(name):
        raise InvalidArgumentError(f"{name!r} is not the name of a machine: write machines/ID", field=field)
    return name


def collection_name(name: str, field: str = "name") -> str:
    """Returns `name` if it can be that of a collection.

    Raises:
        InvalidArgumentError: it cannot.
    """
    if not _COLLECTION.fullmatch(name):
        raise InvalidArgumentError(
            f"{name!r} is not the name of a collection: write collections/ID, the ID of letters, digits and -",
            field=field,
        )
    return name


_DEPLOYMENT = re.compile(r"deployments/[A-Za-z0-9-]{1,63}")


_RUN = re.compile(r"deployments/[A-Za-z0-9-]{1,63}/runs/[A-Za-z0-9-]{1,90}")


def deployment_name(name: str, field: str = "name") -> str:
    """Returns `name` if it can be that of a deployment.

    Raises:
        InvalidArgumentError: it cannot.
    """
    if not _DEPLOYMENT.fullmatch(name):
        raise InvalidArgumentError(f"{name!r} is not the name of a deployment: write deployments/ID", field=field)
    return name


def run_name(name: str, field: str = "name") -> str:
    """Returns `name` if it can be that of a run.

    Raises:
        InvalidArgumentError: it cannot.
    """
    if not _RUN.fullmatch(name):
        raise InvalidArgumentError(f"{name!r} is not the name of a run: write deployments/ID/runs/ID", field=field)
    return name


_IMAGE = re.compile(r"images/[A-Za-z0-9][A-Za-z0-9._-]{0,62}(@sha256:[0-9a-f]{64})?")


_SESSION = re.compile(r"sessions/[A-Za-z0-9-]{1,63}")


def image_name(name: str, field: str = "image") -> str:
    """Returns `name` if it can be that of an image or an image version.

    Raises:
        InvalidArgumentError: it cannot.
    """
    if not _IMAGE.fullmatch(name):
        raise InvalidArgumentError(
            f"{name!r} is not the name of an image: write images/NAME or images/NAME@sha256:HEX", field=field
        )
    return name


def session_name(name: str, field: str = "name") -> str:
    """Returns `name` if it can be that of a session.

    Raises:
        InvalidArgumentError: it cannot.
    """
    if not _SESSION.fullmatch(name):
        raise InvalidArgumentError(f"{name!r} is not the name of a session: write sessions/ID", field=field)
    return name


def new_name(collection: str, now: float) -> str:
    """Returns a new name that tells the day, such as `sessions/20261201-k3f9qx`."""
    day = datetime.fromtimestamp(now, UTC).strftime("%Y%m%d")
    return f"{collection}/{day}-{base64.b32encode(secrets.token_bytes(5)).decode().lower()[:6]}"
