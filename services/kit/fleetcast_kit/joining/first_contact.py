"""The first look at a server, before there is any trust: which certificates does it show?"""

from __future__ import annotations

import ipaddress
import selectors
import socket
import time
from collections.abc import Callable
from datetime import datetime

from cryptography import x509
from OpenSSL import SSL

from fleetcast_kit.errors import FailedPreconditionError, UnavailableError
from fleetcast_kit.identity import certificates
from fleetcast_kit.values.addresses import is_ip_address, join_address

CONNECT_SECONDS = 10.0
"""How long a server may take to answer; a LAN needs milliseconds, a boot after a power cut some seconds."""


def fetch_authority(
    host: str, port: int, fingerprint: bytes, clock: Callable[[], datetime] = certificates.now
) -> x509.Certificate:
    """Returns the certificate of the authority with the SHA-256 `fingerprint` that the server shows. Blocks.

    It also makes sure that a connection will work: that the server's certificate is valid by this host's clock, and
    for `host`.

    Raises:
        UnavailableError: nobody answers there, or not with TLS.
        FailedPreconditionError: the server is another one, is not known as `host`, or this host's clock is wrong.
    """
    address = join_address(host, port)
    chain = _fetch_chain(host, port)
    authority = next((found for found in chain if certificates.fingerprint(found) == fingerprint), None)
    if authority is None or not certificates.is_issued_by(chain[0], authority):
        raise FailedPreconditionError(
            f"the enrolment token is for another server than the one at {address}: check the address and the token",
            reason="TOKEN_FOR_OTHER_SERVER",
        )
    now = clock()
    if not chain[0].not_valid_before_utc <= now <= chain[0].not_valid_after_utc:
        raise FailedPreconditionError(
            f"the server's certificate is valid from {chain[0].not_valid_before_utc:%Y-%m-%d} to "
            f"{chain[0].not_valid_after_utc:%Y-%m-%d}, and this machine's clock says {now:%Y-%m-%d %H:%M} UTC: "
            "set the clock",
            reason="CLOCK_WRONG",
        )
    names = certificates.names_in(chain[0])
    known_as = str(ipaddress.ip_address(host)) if is_ip_address(host) else host.lower()
    if known_as not in names:
        raise FailedPreconditionError(
            f"the server at {address} does not know itself as {host!r}: dial it as one of {', '.join(names)}, "
            f"or start it with --advertise {host}",
            reason="NAME_NOT_ADVERTISED",
        )
    return authority


def _fetch_chain(host: str, port: int) -> list[x509.Certificate]:
    address = join_address(host, port)
    deadline = time.monotonic() + CONNECT_SECONDS
    try:
        stream = socket.create_connection((host, port), timeout=CONNECT_SECONDS)
    except socket.gaierror as error:
        raise UnavailableError(
            f"cannot reach {address}: the host name {host!r} is not known; check the address", reason="UNKNOWN_HOST"
        ) from error
    except TimeoutError as error:
        raise UnavailableError(
            f"cannot reach {address}: nobody answered within {CONNECT_SECONDS:.0f} s; check the address"
        ) from error
    except OSError as error:
        raise UnavailableError(
            f"cannot reach {address}: {error.strerror}; check the address and that the server runs"
        ) from error
    with stream:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_alpn_protos([b"h2"])
        connection = SSL.Connection(context, stream)
        if not is_ip_address(host):
            connection.set_tlsext_host_name(host.encode("idna"))
        connection.set_connect_state()
        try:
            while True:
                try:
                    connection.do_handshake()
                    break
                except SSL.WantReadError:
                    _wait(stream, deadline, selectors.EVENT_READ)
                except SSL.WantWriteError:
                    _wait(stream, deadline, selectors.EVENT_WRITE)
            chain = connection.get_peer_cert_chain(as_cryptography=True)
        except (SSL.Error, OSError) as error:
            raise UnavailableError(
                f"what answers at {address} does not speak TLS as a fleetcast server does: check the address and port",
                reason="NOT_A_FLEETCAST_SERVER",
            ) from error
    if not chain:
        raise UnavailableError(f"the server at {address} shows no certificate", reason="NOT_A_FLEETCAST_SERVER")
    return chain


def _wait(stream: socket.socket, deadline: float, event: int) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(stream, event)
        if not selector.select(max(0.0, deadline - time.monotonic())):
            raise TimeoutError("the TLS handshake did not end in time")
