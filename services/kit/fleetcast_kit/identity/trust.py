"""Which callers a server accepts: those with a certificate of the authority, and those with an enrolment token."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from functools import lru_cache

import grpc
from cryptography import x509

from fleetcast_kit.errors import FleetcastError
from fleetcast_kit.identity import certificates
from fleetcast_kit.identity.credentials import Credentials
from fleetcast_kit.identity.enrolment_token import token_id_of
from fleetcast_kit.identity.peer import Identity, Peer, Role, identity_in

_logger = logging.getLogger(__name__)


class TrustBundle:
    """The certificates against which a server checks its callers. Safe to use from any thread."""

    def __init__(self, authority: x509.Certificate) -> None:
        self.authority = authority
        self._token_roots: dict[str, x509.Certificate] = {}
        self._lock = threading.Lock()
        self._pem = certificates.certificate_pem(authority)
        self._issued = lru_cache(maxsize=16384)(self._load_issued)

    @property
    def pem(self) -> bytes:
        """All of them, in PEM; the same object until something changes."""
        return self._pem

    def set_token_roots(self, roots: Iterable[x509.Certificate]) -> None:
        """Makes `roots` the tokens whose holders are let in; effective with the next handshake."""
        by_id = {token_id_of(root.subject) or "": root for root in roots}
        with self._lock:
            self._token_roots = by_id
            self._pem = b"".join(map(certificates.certificate_pem, [self.authority, *by_id.values()]))

    def identify(self, leaf_pem: bytes) -> Peer | None:
        """Returns who the bearer of a certificate is, or None if it proves nothing.

        What the certificate says of itself counts only if the authority signed it. A certificate signed with a token
        makes its bearer the holder of that token and nothing else, whatever it says.
        """
        peer = self._issued(leaf_pem)
        if peer is not None:
            return peer
        try:
            leaf = x509.load_pem_x509_certificate(leaf_pem)
        except ValueError:
            return None
        token_id = token_id_of(leaf.issuer)
        root = self._token_roots.get(token_id) if token_id else None
        if token_id is None or root is None or not certificates.is_issued_by(leaf, root):
            return None
        return Peer(Identity.of(Role.TOKEN_HOLDER, token_id), leaf)

    def _load_issued(self, leaf_pem: bytes) -> Peer | None:
        try:
            leaf = x509.load_pem_x509_certificate(leaf_pem)
        except ValueError:
            return None
        identity = identity_in(leaf)
        if identity is None or not certificates.is_issued_by(leaf, self.authority):
            return None
        return Peer(identity, leaf)


class ServerCredentials:
    """What a server shows to its callers, and whom it lets in. Both may change while it runs."""

    def __init__(
        self,
        credentials: Credentials,
        trust: TrustBundle | None = None,
        *,
        reissue: Callable[[], Credentials] | None = None,
    ) -> None:
        self.trust = trust or TrustBundle(credentials.authority)
        self._reissue = reissue
        self.replace(credentials)

    def replace(self, credentials: Credentials) -> None:
        """Shows `credentials` from the next handshake on."""
        certificate = credentials.certificate
        self._begin_time, self._end_time = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        self._renewal_time = credentials.renewal_time
        self._credentials = credentials

    def for_port(self) -> grpc.ServerCredentials:
        """Returns the credentials for one port: mutual TLS, with the present certificates at each handshake."""
        shown = (self._current(), self.trust.pem)

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            # Called by gRPC in a thread of its own before each handshake; None means unchanged.
            nonlocal shown
            present = (self._current(), self.trust.pem)
            if present[0] is shown[0] and present[1] is shown[1]:
                return None
            shown = present
            return _configuration(*present)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(*shown),
            fetch,  # type: ignore[arg-type]  # the stubs do not know that None means unchanged
            require_client_authentication=True,
        )

    def _current(self) -> Credentials:
        if self._reissue is not None and not self._begin_time <= certificates.now() < self._renewal_time:
            try:
                self.replace(self._reissue())
            except (OSError, FleetcastError):
                _logger.exception("cannot renew the server's certificate; it is valid until %s", self._end_time)
        return self._credentials


def _configuration(credentials: Credentials, trusted_pem: bytes) -> grpc.ServerCertificateConfiguration:
    chain = credentials.certificate_pem + credentials.authority_pem
    return grpc.ssl_server_certificate_configuration([(credentials.key_pem, chain)], trusted_pem)
