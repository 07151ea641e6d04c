"""The caller: the identity that a certificate proves, and that of the call that is handled now."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

from cryptography import x509

from fleetcast_kit.errors import UnauthenticatedError

URI_SCHEME = "fleetcast:"
"""What the certificate's subject alternative name of type URI starts with; the resource name follows."""


class Role(StrEnum):
    """What an identity may be; each RPC names the roles that may call it."""

    ADMINISTRATOR = "administrator"
    MACHINE = "machine"
    SENDER = "sender"
    SERVICE = "service"
    TOKEN_HOLDER = "token holder"


_COLLECTIONS = {
    Role.ADMINISTRATOR: "administrators",
    Role.MACHINE: "machines",
    Role.SENDER: "senders",
    Role.SERVICE: "services",
    Role.TOKEN_HOLDER: "enrolmentTokens",
}
_ROLES = {collection: role for role, collection in _COLLECTIONS.items()}

ENROLLED_ROLES = frozenset(Role) - {Role.TOKEN_HOLDER}
"""The roles whose certificate comes from the authority."""


@dataclass(frozen=True)
class Identity:
    """A role and the resource name of its bearer."""

    role: Role
    name: str
    """Such as `machines/ab12cd34ef56`."""

    @classmethod
    def of(cls, role: Role, identifier: str) -> Identity:
        """Returns the identity `identifier` in the collection of `role`."""
        return cls(role, f"{_COLLECTIONS[role]}/{identifier}")

    @classmethod
    def parse(cls, name: str) -> Identity:
        """Returns the identity with the resource name `name`.

        Raises:
            ValueError: the name is not `{collection of a role}/{id}`.
        """
        collection, _, identifier = name.partition("/")
        if collection not in _ROLES or not identifier or "/" in identifier:
            raise ValueError(f"{name!r} is not the name of an identity")
        return cls(_ROLES[collection], name)

    @property
    def uri(self) -> str:
        """The URI that stands for it in a certificate."""
        return URI_SCHEME + self.name

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Peer:
    """The proven other side of a call."""

    identity: Identity
    certificate: x509.Certificate
    address: str = ""
    """IP address that the call comes from; empty if it is not known."""


_current_peer: ContextVar[Peer] = ContextVar("fleetcast_peer")


def current_identity() -> Identity:
    """Returns who makes the call that is being handled.

    Raises:
        UnauthenticatedError: no call is being handled.
    """
    return current_peer().identity


def current_peer() -> Peer:
    """Returns who makes the call that is being handled, with its certificate.

    Raises:
        UnauthenticatedError: no call is being handled.
    """
    try:
        return _current_peer.get()
    except LookupError:
        raise UnauthenticatedError("no call is being handled here, so nobody called") from None


def set_current_peer(peer: Peer) -> None:
    """Makes `peer` the caller for the rest of this task. For the server's interceptor, and for tests of servicers."""
    _current_peer.set(peer)


def identity_in(certificate: x509.Certificate) -> Identity | None:
    """Returns the identity that a certificate states, or None. Who signed it must have been checked before."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    uris = [uri for uri in names.get_values_for_type(x509.UniformResourceIdentifier) if uri.startswith(URI_SCHEME)]
    if len(uris) != 1:
        return None
    try:
        identity = Identity.parse(uris[0].removeprefix(URI_SCHEME))
    except ValueError:
        return None
    return identity if identity.role in ENROLLED_ROLES else None
