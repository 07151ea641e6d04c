"""Protobuf to what the sender works with, and back. Checks every field that a peer fills in."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from fleetcast.scheduler.v1 import session_pb2
from fleetcast.sender.v1 import transmission_service_pb2
from fleetcast.type.v1 import chunk_set_pb2, chunk_table_pb2
from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_wire.chunkset import unpack_chunk_set
from fleetcast_wire.errors import ChunkSetError
from fleetcast_wire.geometry import Geometry
from fleetcast_wire.keys import SealKeys
from fleetcast_wire.packet import VERSION
from fleetcast_wire.parity.fec import CODECS

from fleetcast_sender.chunks.convert import chunk_set
from fleetcast_sender.chunks.source import ChunkTable
from fleetcast_sender.engine.messages import (
    ChunkMembers,
    Deficits,
    Dismissed,
    Holding,
    Join,
    Offered,
    PassEnded,
    Planned,
    Reception,
    Told,
    UnicastReason,
    Welcomed,
)
from fleetcast_sender.engine.policy import SlowAction, SlowPolicy
from fleetcast_sender.engine.rate import RatePolicy

_logger = logging.getLogger(__name__)

TABLE_RUN_ROWS = 16384
_LEAST_PAYLOAD_BYTES = 1232
"""Every IPv6 path takes as much; a smaller symbol would cost the whole group more datagrams."""
_LEAST_WINDOW_MEMORY_BYTES = 8 << 20
_LEAST_LINK_BITS_PER_SECOND = 10_000_000
"""What says to be slower does not know its link, or lies."""

_SLOW_ACTIONS = {
    session_pb2.SlowPolicy.ACTION_KEEP: SlowAction.KEEP,
    session_pb2.SlowPolicy.ACTION_UNICAST: SlowAction.UNICAST,
    session_pb2.SlowPolicy.ACTION_SEPARATE: SlowAction.SEPARATE,
    session_pb2.SlowPolicy.ACTION_DISCONNECT: SlowAction.DISCONNECT,
}


def members_of(message: chunk_set_pb2.ChunkSet, chunk_count: int, field: str) -> ChunkMembers:
    """Returns the members of a set that a receiver sent.

    Raises:
        InvalidArgumentError: it does not fit the image.
    """
    try:
        if message.bitmap and message.chunk_count != chunk_count:
            raise ChunkSetError(f"the set is of {message.chunk_count} chunks, the image has {chunk_count}")
        return unpack_chunk_set(message.bitmap, message.compressed, chunk_count)
    except ChunkSetError as error:
        raise InvalidArgumentError(str(error), field=field) from error


def join_of(message: transmission_service_pb2.ReceiverJoin, machine: str, chunk_count: int) -> Join:
    """Returns a receiver's wish to take part.

    Raises:
        InvalidArgumentError: a field makes no sense.
    """
    link, fits = message.link_bits_per_second, _fits(message)
    return Join(
        machine,
        members_of(message.held, chunk_count, "join.held"),
        # Whoever takes other datagrams is served by unicast, and so is whoever would make them worse for the others.
        unicast_only=message.unicast_only or not fits,
        unicast_reason=UnicastReason.NO_MULTICAST if message.unicast_only else UnicastReason.LIMITS,
        window_memory_bytes=message.window_memory_bytes or 1 << 40,
        max_payload_bytes=message.max_payload_bytes or 65507,
        codecs=frozenset(message.codecs),
        receive_buffer_bytes=message.receive_buffer_bytes,
        link_bits_per_second=link if link >= _LEAST_LINK_BITS_PER_SECOND else 0,
    )


def _fits(message: transmission_service_pb2.ReceiverJoin) -> bool:
    """Returns whether a receiver can take the group's datagrams without harm to the others."""
    if VERSION not in (message.datagram_versions or [1]):
        _logger.warning(
            "an agent takes datagrams of version %s, this sender makes version %d: its machine is served by unicast; "
            "update the agent",
            " and ".join(map(str, message.datagram_versions or [1])),
            VERSION,
        )
        return False
    payload, memory = message.max_payload_bytes, message.window_memory_bytes
    roomy = not 0 < payload < _LEAST_PAYLOAD_BYTES and not 0 < memory < _LEAST_WINDOW_MEMORY_BYTES
    return roomy and set(CODECS) <= set(message.codecs)


def reception_of(message: transmission_service_pb2.ReceptionReport) -> Reception:
    """Returns a receiver's totals."""
    return Reception(
        message.highest_packet_counter,
        message.datagram_count,
        overflow_datagram_count=message.overflow_datagram_count,
        backlog_bytes=message.backlog_bytes,
        written_bytes=message.written_bytes,
        dropped_window_count=message.dropped_window_count,
    )


def deficits_of(message: transmission_service_pb2.DeficitReport) -> Deficits:
    """Returns a receiver's deficits of one window."""
    return Deficits(getattr(message, "pass"), message.window, message.round, message.run_values, message.run_lengths)


def holding_of(message: transmission_service_pb2.HoldingReport, chunk_count: int) -> Holding:
    """Returns everything that a receiver holds.

    Raises:
        InvalidArgumentError: it does not fit the image.
    """
    return Holding(getattr(message, "pass"), members_of(message.held, chunk_count, "holding.held"))


def geometry_message(geometry: Geometry) -> transmission_service_pb2.Geometry:
    """Returns the message of a geometry."""
    return transmission_service_pb2.Geometry(
        symbol_bytes=geometry.symbol_bytes,
        codeword_symbols=geometry.codeword_symbols,
        window_codewords=geometry.window_codewords,
        parity_symbols=geometry.parity_symbols,
        codec=geometry.codec,
    )


def welcome_message(
    welcomed: Welcomed, keys: SealKeys, *, group: str, port: int, source_address: str
) -> transmission_service_pb2.ReceiveResponse:
    """Returns the answer to a join; a receiver of unicast alone gets no keys."""
    interval = round(welcomed.report_interval_seconds * 1000)
    if welcomed.unicast_only:
        return transmission_service_pb2.ReceiveResponse(
            welcome=transmission_service_pb2.ReceiverWelcome(
                geometry=geometry_message(welcomed.geometry), report_interval_milliseconds=interval
            )
        )
    return transmission_service_pb2.ReceiveResponse(
        welcome=transmission_service_pb2.ReceiverWelcome(
            group=group,
            port=port,
            source_address=source_address,
            transmission_tag=keys.tag,
            key=keys.key,
            initialization_vector=keys.initialization_vector,
            verification_key=keys.verification_key,
            geometry=geometry_message(welcomed.geometry),
            report_interval_milliseconds=interval,
        )
    )


def told_message(told: Told) -> transmission_service_pb2.ReceiveResponse:
    """Returns the message of anything but a welcome."""
    match told:
        case Planned():
            plan = transmission_service_pb2.PassPlan(chunks=chunk_set(told.chunks), **{"pass": told.pass_number})
            return transmission_service_pb2.ReceiveResponse(plan=plan)
        case PassEnded():
            return transmission_service_pb2.ReceiveResponse(
                pass_end=transmission_service_pb2.PassEnd(**{"pass": told.pass_number})
            )
        case Offered():
            return transmission_service_pb2.ReceiveResponse(
                unicast=transmission_service_pb2.UnicastOffer(chunks=chunk_set(told.chunks))
            )
        case Dismissed():
            return transmission_service_pb2.ReceiveResponse(
                dismissal=transmission_service_pb2.ReceiverDismissal(reason=told.reason)
            )
        case Welcomed():
            raise TypeError("a welcome needs keys: use welcome_message")


def rate_policy_of(message: session_pb2.RatePolicy) -> RatePolicy:
    """Returns how fast a session is to be sent.

    Raises:
        InvalidArgumentError: a rate is negative.
    """
    for field in ("fixed_bits_per_second", "ceiling_bits_per_second"):
        if getattr(message, field) < 0:
            raise InvalidArgumentError(f"{field} is {getattr(message, field)}: it cannot be negative", field=field)
    return RatePolicy(message.fixed_bits_per_second, message.ceiling_bits_per_second)


def slow_policy_of(message: session_pb2.SlowPolicy, default: SlowPolicy) -> SlowPolicy:
    """Returns what becomes of slow receivers of a session; what it leaves open is as in `default`.

    Raises:
        InvalidArgumentError: the threshold is negative.
    """
    if message.threshold_bits_per_second < 0:
        raise InvalidArgumentError(
            f"threshold_bits_per_second is {message.threshold_bits_per_second}: it cannot be negative",
            field="threshold_bits_per_second",
        )
    action = _SLOW_ACTIONS.get(message.action, default.action)
    return replace(default, action=action, bits_per_second=message.threshold_bits_per_second)


def unicast_messages(machines: Mapping[UnicastReason, Sequence[str]]) -> list[session_pb2.UnicastMachines]:
    """Returns which machines get chunks by unicast, by the reason, as the scheduler is told."""
    return [
        session_pb2.UnicastMachines(
            reason=session_pb2.UnicastReason.Value(f"UNICAST_REASON_{reason.name}"),
            machine_count=len(names),
            machines=names,
        )
        for reason, names in machines.items()
    ]


def chunk_table_messages(table: ChunkTable) -> list[transmission_service_pb2.GetChunkTableResponse]:
    """Returns the table in runs; the first names the image's sizes."""
    manifest, messages = table.manifest, []
    for first in range(0, manifest.chunk_count, TABLE_RUN_ROWS):
        rows = slice(first, first + TABLE_RUN_ROWS)
        run = chunk_table_pb2.ChunkTable(
            first_chunk=first,
            digests=manifest.digests[rows].tobytes(),
            stored_size_bytes=table.stored_size_bytes[rows].tolist(),
            encodings=table.encodings[rows].tolist(),
        )
        messages.append(transmission_service_pb2.GetChunkTableResponse(table=run))
    messages[0].size_bytes = manifest.size_bytes
    messages[0].chunk_size_bytes = manifest.chunk_size_bytes
    return messages
