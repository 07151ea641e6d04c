"""Upload grants: what permits one machine to add versions to certain images, for a while.

The scheduler issues one with a run whose steps capture something; the catalog, which trusts the same authority, checks
it. Text: `fcg1.`, the base64url of a JSON object, `.`, and the base64url of the authority's signature. It is of no use
to anybody but the machine that it names, which must prove itself by its certificate beside it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from cryptography import x509

from fleetcast_kit.errors import PermissionDeniedError
from fleetcast_kit.identity import certificates
from fleetcast_kit.identity.authority import CertificateAuthority

_PREFIX = "fcg1"
_PURPOSE = "upload grant 1"


def issue_upload_grant(
    authority: CertificateAuthority,
    *,
    machine: str,
    images: Iterable[str],
    lifetime: timedelta,
    owned: Iterable[str] = (),
    now: datetime | None = None,
) -> str:
    """Returns the grant that lets `machine` upload versions of `images` until `lifetime` has passed; empty for none.

    `machine` is the resource name that its certificate states; `images` are names of series, such as `user-state`, with
    or without `images/`. Versions of the series in `owned` will belong to the machine. The grant is looked at when an
    upload begins: one that has begun may end later.
    """
    series = sorted({image.removeprefix("images/") for image in images})
    if not series:
        return ""
    expire_time = (now or certificates.now()) + lifetime
    content = {"machine": machine, "images": series, "expires": int(expire_time.timestamp())}
    if belonging := sorted({image.removeprefix("images/") for image in owned} & set(series)):
        content["owned"] = belonging
    payload = json.dumps(content, separators=(",", ":")).encode()
    return ".".join((_PREFIX, _encoded(payload), _encoded(authority.sign(_PURPOSE, payload))))


def check_upload_grant(
    grant: str, authority: x509.Certificate, *, machine: str, image: str, now: datetime | None = None
) -> bool:
    """Checks that `grant` permits `machine`, proven by its certificate, to add a version to the series `image`.

    Returns whether the version will belong to the machine, so that no other one gets it.

    Raises:
        PermissionDeniedError: it does not; the sentence says why.
    """
    if not grant:
        _refuse(f"{machine} may not upload {image}: a machine needs the grant of a run that captures it")
    try:
        prefix, payload_text, signature_text = grant.split(".")
        payload, signature = _decoded(payload_text), _decoded(signature_text)
        if prefix != _PREFIX or not certificates.is_signed_by(authority, _PURPOSE, payload, signature):
            raise ValueError
        content = json.loads(payload)
        granted_machine, images = str(content["machine"]), [str(series) for series in content["images"]]
        expire_time = datetime.fromtimestamp(content["expires"], UTC)
        owned = [str(series) for series in content.get("owned", ())]
    except (ValueError, TypeError, KeyError, OverflowError, OSError, binascii.Error):
        _refuse(f"the upload grant that {machine} shows is damaged, or of another installation")
    if granted_machine != machine:
        _refuse(f"{machine} shows an upload grant that was issued to {granted_machine}")
    if (now or certificates.now()) >= expire_time:
        _refuse(f"the upload grant of {machine} expired at {expire_time:%Y-%m-%d %H:%M:%S} UTC: run the sequence again")
    if image not in images:
        _refuse(
            f"the upload grant of {machine} is for {', '.join(images)}, not for {image}: only what the steps of its "
            "run name can be uploaded"
        )
    return image in owned


def _refuse(message: str) -> NoReturn:
    raise PermissionDeniedError(message, reason="UPLOAD_NOT_GRANTED")


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if _encoded(content) != text:
        raise ValueError("the same content has one text only")
    return content
