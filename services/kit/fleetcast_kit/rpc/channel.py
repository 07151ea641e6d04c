"""Channels to fleetcast servers: mutual TLS, traced, with keepalive."""

from __future__ import annotations

import grpc

from fleetcast_kit.identity.credentials import Credentials
from fleetcast_kit.process import telemetry
from fleetcast_kit.values.addresses import join_address, split_address

MAX_MESSAGE_BYTES = 16 * 2**20
"""Largest message either side takes: a stored chunk of 4 MiB and a manifest of 300,000 digests fit."""

KEEPALIVE_SECONDS = 10
"""A connection whose other side vanished is noticed after this and the timeout."""
KEEPALIVE_TIMEOUT_SECONDS = 5

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_SECONDS * 1000),
    ("grpc.http2.max_pings_without_data", 0),
    # A server that restarts is found again quickly; a thousand machines spread by gRPC's own jitter of a fifth.
    ("grpc.initial_reconnect_backoff_ms", 250),
    # In spite of its name the time that one attempt may take, handshake included, when a whole room connects at once.
    ("grpc.min_reconnect_backoff_ms", 20000),
    ("grpc.max_reconnect_backoff_ms", 5000),
    # Servers stand in the same network; a web proxy of the environment is not meant for them.
    ("grpc.enable_http_proxy", 0),
)


def open_channel(address: str, credentials: Credentials) -> grpc.aio.Channel:
    """Returns a channel to the server at `address` (HOST:PORT) that proves the identity of `credentials`.

    The server must show a certificate of the same authority for the host that `address` names. Nothing is sent before
    the first call. The caller closes the channel.

    Raises:
        InvalidArgumentError: `address` is not HOST:PORT.
    """
    return grpc.aio.secure_channel(
        join_address(*split_address(address, field="server")),
        credentials.channel_credentials(),
        options=_OPTIONS,
        interceptors=telemetry.client_interceptors(),
    )
