"""Channels to fleetcast servers: mutual TLS, traced, with keepalive."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from fleetcast_kit.identity.credentials import Credentials
from fleetcast_kit.process import telemetry
from fleetcast_kit.values.addresses import join_address, split_address

MAX_MESSAGE_BYTES = 16 * 2**20
"""Largest message either side takes: a stored chunk of 4 MiB and a manifest of 300,000 digests fit."""


@dataclass(frozen=True)
class Keepalive:
    """How soon both ends of a connection notice that the other one is gone or hangs: after both times together."""

    seconds: float = 10.0
    """A connection on which nothing came for so long is asked for an answer."""
    timeout_seconds: float = 5.0
    """So long the answer may take."""

    def options(self) -> tuple[tuple[str, int], ...]:
        """Returns the options of gRPC, for channels and servers alike."""
        timeout_milliseconds = round(self.timeout_seconds * 1000)
        return (
            ("grpc.keepalive_time_ms", round(self.seconds * 1000)),
            # For one whose host is gone, and for one whose host still acknowledges while the process hangs.
            ("grpc.keepalive_timeout_ms", timeout_milliseconds),
            ("grpc.http2.ping_timeout_ms", timeout_milliseconds),
            ("grpc.http2.max_pings_without_data", 0),
            # Clients ask on streams that may be silent for hours; a server of gRPC would take that for abuse.
            ("grpc.http2.min_ping_interval_without_data_ms", round(self.seconds * 500)),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", round(self.seconds * 500)),
        )


KEEPALIVE = Keepalive()
"""Of every connection of fleetcast."""

COMMON_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)
"""Of channels and servers."""

_OPTIONS = (
    *COMMON_OPTIONS,
    # A server that restarts is found again quickly; a thousand machines spread by gRPC's own jitter of a fifth.
    ("grpc.initial_reconnect_backoff_ms", 250),
    # In spite of its name the time that one attempt may take, handshake included, when a whole room connects at once.
    ("grpc.min_reconnect_backoff_ms", 20000),
    ("grpc.max_reconnect_backoff_ms", 5000),
    # Servers stand in the same network; a web proxy of the environment is not meant for them.
    ("grpc.enable_http_proxy", 0),
)


def open_channel(address: str, credentials: Credentials, *, keepalive: Keepalive = KEEPALIVE) -> grpc.aio.Channel:
    """Returns a channel to the server at `address` (HOST:PORT) that proves the identity of `credentials`.

    The server must show a certificate of the same authority for the host that `address` names. Nothing is sent before
    the first call. The caller closes the channel.

    Raises:
        InvalidArgumentError: `address` is not HOST:PORT.
    """
    return grpc.aio.secure_channel(
        join_address(*split_address(address, field="server")),
        credentials.channel_credentials(),
        options=(*_OPTIONS, *keepalive.options()),
        interceptors=telemetry.client_interceptors(),
    )
