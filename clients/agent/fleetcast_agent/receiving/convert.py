"""Protobuf to what the agent works with, and back. Checks every field that a peer fills in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from fleetcast.scheduler.v1 import participation_service_pb2, session_pb2
from fleetcast.sender.v1 import transmission_service_pb2
from fleetcast.type.v1 import chunk_set_pb2, chunk_table_pb2
from fleetcast_wire.chunkset import pack_chunk_set, unpack_chunk_set
from fleetcast_wire.errors import ChunkSetError, GeometryError, ManifestError
from fleetcast_wire.geometry import Geometry
from fleetcast_wire.keys import INITIALIZATION_VECTOR_BYTES, KEY_BYTES, VERIFICATION_KEY_BYTES, SealKeys
from fleetcast_wire.manifest import DIGEST_BYTES, Manifest
from fleetcast_wire.packet import VERSION
from fleetcast_wire.parity.fec import CODECS
from fleetcast_wire.runs import pack_runs

from fleetcast_agent.receiving.errors import ChunkTableError, GroupUnusableError, TransmissionError
from fleetcast_agent.receiving.messages import (
    Assignment,
    ChunkMembers,
    Dismissal,
    DismissalReason,
    JoinRequest,
    PassEnded,
    PassPlanned,
    ReceiverLimits,
    ReceptionTotals,
    SenderDismissal,
    Totals,
    UnicastOffered,
    Waiting,
    Welcome,
)
from fleetcast_agent.receiving.multicast.reception.events import DeficitsCounted
from fleetcast_agent.receiving.writing.chunk_table import ChunkTable

_MAX_INT64 = (1 << 63) - 1

FromSender = Welcome | PassPlanned | PassEnded | UnicastOffered | SenderDismissal
FromScheduler = Waiting | Assignment | Dismissal | None

_REASONS = {
    participation_service_pb2.Dismissal.REASON_DONE: DismissalReason.DONE,
    participation_service_pb2.Dismissal.REASON_CANCELLED: DismissalReason.CANCELLED,
    participation_service_pb2.Dismissal.REASON_REMOVED: DismissalReason.REMOVED,
}

# The scheduler.


def join_message(join: JoinRequest, sequence: int) -> participation_service_pb2.ParticipateRequest:
    """Returns the first message of a participation."""
    message = participation_service_pb2.Join(
        display_name=join.display_name,
        unicast_only=bool(join.no_multicast_reason),
        no_multicast_reason=join.no_multicast_reason,
        target_size_bytes=join.target_size_bytes,
        held_image=join.held_image,
        run=join.run,
        medium=participation_service_pb2.Join.Medium.Value(f"MEDIUM_{join.medium.upper() or 'UNSPECIFIED'}"),
        medium_sector_size_bytes=join.medium_sector_size_bytes,
        hardware=participation_service_pb2.HardwareIdentifiers(
            smbios_uuid=join.hardware.smbios_uuid,
            serial_number=join.hardware.serial_number,
            mac_addresses=join.hardware.mac_addresses,
        ),
    )
    if join.session:
        message.session = join.session
    else:
        message.image = join.image
    return participation_service_pb2.ParticipateRequest(sequence=sequence, join=message)


def progress_message(totals: Totals, sequence: int) -> participation_service_pb2.ParticipateRequest:
    """Returns a report of progress."""
    return participation_service_pb2.ParticipateRequest(sequence=sequence, progress=_totals(totals))


def outcome_message(totals: Totals, error: str, sequence: int) -> participation_service_pb2.ParticipateRequest:
    """Returns how the reception ended: well if `error` is empty."""
    outcome = participation_service_pb2.Outcome(totals=_totals(totals), succeeded=not error, error=error)
    return participation_service_pb2.ParticipateRequest(sequence=sequence, outcome=outcome)


def sender_unreachable_message(
    transmission: str, detail: str, sequence: int
) -> participation_service_pb2.ParticipateRequest:
    """Returns the request for another assignment."""
    unreachable = participation_service_pb2.SenderUnreachable(transmission=transmission, detail=detail)
    return participation_service_pb2.ParticipateRequest(sequence=sequence, sender_unreachable=unreachable)


def from_scheduler(message: participation_service_pb2.ParticipateResponse) -> FromScheduler:
    """Returns what the scheduler says, or None for an acknowledgement alone."""
    match message.WhichOneof("message"):
        case "waiting":
            waiting = message.waiting
            return Waiting(waiting.session, waiting.image, waiting.reason, waiting.joined_count, waiting.min_clients)
        case "assignment":
            given = message.assignment
            return Assignment(
                given.session,
                given.image,
                given.size_bytes,
                given.transmission,
                given.sender_address,
                given.traceparent,
            )
        case "dismissal":
            dismissal = message.dismissal
            return Dismissal(_REASONS.get(dismissal.reason, DismissalReason.SESSION_FAILED), dismissal.detail)
        case _:
            return None


def _totals(totals: Totals) -> session_pb2.ReceptionTotals:
    return session_pb2.ReceptionTotals(**vars(totals))


# The sender.


def receiver_join_message(
    transmission: str, held: ChunkMembers, limits: ReceiverLimits
) -> transmission_service_pb2.ReceiveRequest:
    """Returns the first message to a sender."""
    return transmission_service_pb2.ReceiveRequest(
        join=transmission_service_pb2.ReceiverJoin(
            transmission=transmission,
            held=chunk_set_message(held),
            unicast_only=limits.unicast_only,
            window_memory_bytes=limits.window_memory_bytes,
            max_payload_bytes=limits.max_payload_bytes,
            codecs=limits.codecs,
            receive_buffer_bytes=limits.receive_buffer_bytes,
            link_bits_per_second=limits.link_bits_per_second,
            datagram_versions=[VERSION],
        )
    )


def ready_message() -> transmission_service_pb2.ReceiveRequest:
    """Returns the word that this machine hears the group."""
    return transmission_service_pb2.ReceiveRequest(ready=transmission_service_pb2.ReceiverReady())


def done_message() -> transmission_service_pb2.ReceiveRequest:
    """Returns the word that nothing is lacking."""
    return transmission_service_pb2.ReceiveRequest(done=transmission_service_pb2.ReceiverDone())


def report_message(totals: ReceptionTotals) -> transmission_service_pb2.ReceiveRequest:
    """Returns a reception report."""
    fields = {name: max(-1, min(value, _MAX_INT64)) for name, value in vars(totals).items()}
    fields["pass"] = fields.pop("pass_number")
    return transmission_service_pb2.ReceiveRequest(report=transmission_service_pb2.ReceptionReport(**fields))


def deficits_message(counted: DeficitsCounted) -> transmission_service_pb2.ReceiveRequest:
    """Returns the deficits of a window."""
    values, lengths = pack_runs(counted.deficits)
    report = transmission_service_pb2.DeficitReport(
        window=counted.window,
        round=counted.round,
        run_values=values,
        run_lengths=lengths,
        **{"pass": counted.pass_number},
    )
    return transmission_service_pb2.ReceiveRequest(deficits=report)


def holding_message(pass_number: int, held: ChunkMembers) -> transmission_service_pb2.ReceiveRequest:
    """Returns everything held."""
    holding = transmission_service_pb2.HoldingReport(held=chunk_set_message(held), **{"pass": pass_number})
    return transmission_service_pb2.ReceiveRequest(holding=holding)


def chunk_table_request(transmission: str) -> transmission_service_pb2.GetChunkTableRequest:
    """Returns the request for the chunk table of a transmission."""
    return transmission_service_pb2.GetChunkTableRequest(transmission=transmission)


def fetch_request(transmission: str, chunks: ChunkMembers) -> transmission_service_pb2.FetchChunksRequest:
    """Returns the request for chunks by unicast."""
    return transmission_service_pb2.FetchChunksRequest(transmission=transmission, chunks=chunk_set_message(chunks))


def chunk_set_message(members: ChunkMembers) -> chunk_set_pb2.ChunkSet:
    """Returns the message of a set."""
    bitmap, compressed = pack_chunk_set(members)
    return chunk_set_pb2.ChunkSet(chunk_count=len(members), bitmap=bitmap, compressed=compressed)


def from_sender(message: transmission_service_pb2.ReceiveResponse, chunk_count: int) -> FromSender | None:
    """Returns what the sender says, or None if this version does not know it.

    Raises:
        TransmissionError: it makes no sense.
        GroupUnusableError: the sender is older than this agent.
    """
    match message.WhichOneof("message"):
        case "welcome":
            return _welcome(message.welcome)
        case "plan":
            number = int(getattr(message.plan, "pass"))
            if not 1 <= number <= 0xFFFF:
                raise TransmissionError(f"the sender planned pass {number}, outside 1 to 65535")
            return PassPlanned(number, _members(message.plan.chunks, chunk_count))
        case "pass_end":
            return PassEnded(int(getattr(message.pass_end, "pass")))
        case "unicast":
            return UnicastOffered(_members(message.unicast.chunks, chunk_count))
        case "dismissal":
            return SenderDismissal(message.dismissal.reason)
        case _:
            return None


def _welcome(message: transmission_service_pb2.ReceiverWelcome) -> Welcome:
    numbers = message.geometry
    try:
        geometry = Geometry(
            numbers.symbol_bytes,
            numbers.codeword_symbols,
            numbers.window_codewords,
            numbers.parity_symbols,
            numbers.codec,
        )
    except GeometryError as error:
        raise TransmissionError(f"the sender's geometry cannot be used: {error}") from error
    interval = min(max(message.report_interval_milliseconds, 20), 5000) / 1000
    if not message.group:
        return Welcome("", 0, "", None, geometry, interval)
    if geometry.codec and geometry.codec not in CODECS:
        raise TransmissionError(f"the sender's parity codec {geometry.codec!r} is not known: update this agent")
    key, vector, tag = message.key, message.initialization_vector, message.transmission_tag
    if len(key) != KEY_BYTES or len(vector) != INITIALIZATION_VECTOR_BYTES or not 0 <= tag < 1 << 32:
        raise TransmissionError(f"the sender's keys have {len(key)} and {len(vector)} bytes and the tag {tag}")
    if not 0 < message.port < 65536:
        raise TransmissionError(f"the sender's port {message.port} is none")
    if len(message.verification_key) != VERIFICATION_KEY_BYTES:
        raise GroupUnusableError(
            "the sender does not sign what it sends to the group: it is older than this agent, update the server"
        )
    keys = SealKeys(key, vector, tag, message.verification_key)
    return Welcome(message.group, message.port, message.source_address, keys, geometry, interval)


def _members(message: chunk_set_pb2.ChunkSet, chunk_count: int) -> ChunkMembers:
    try:
        if message.bitmap and message.chunk_count != chunk_count:
            raise ChunkSetError(f"it is of {message.chunk_count} chunks, the image has {chunk_count}")
        return unpack_chunk_set(message.bitmap, message.compressed, chunk_count)
    except ChunkSetError as error:
        raise TransmissionError(f"the sender's chunk set cannot be used: {error}") from error


def chunk_table_of(responses: Sequence[transmission_service_pb2.GetChunkTableResponse], image: str) -> ChunkTable:
    """Returns the chunk table of an image, proven against the digest in its name `images/{image}@sha256:{hex}`.

    Raises:
        ChunkTableError: the table is not that of the image.
    """
    runs = [response.table for response in responses]
    if not runs:
        raise ChunkTableError(f"the sender gave an empty chunk table of {image}")
    digests = np.frombuffer(b"".join(run.digests for run in runs), np.uint8)
    sizes = np.array([size for run in runs for size in run.stored_size_bytes], np.int64)
    encodings = np.array([encoding for run in runs for encoding in run.encodings], np.int64)
    rows = 0
    for run in runs:
        if run.first_chunk != rows:
            raise ChunkTableError(f"the chunk table of {image} has row {run.first_chunk} where {rows} belongs")
        rows += len(run.stored_size_bytes)
    if not len(digests) == DIGEST_BYTES * len(sizes) == DIGEST_BYTES * len(encodings):
        raise ChunkTableError(f"the chunk table of {image} has columns of different lengths")
    try:
        first = responses[0]
        manifest = Manifest(first.size_bytes, first.chunk_size_bytes, digests.reshape(-1, DIGEST_BYTES))
    except ManifestError as error:
        raise ChunkTableError(f"the chunk table of {image} is damaged: {error}") from error
    if manifest.digest != image.partition("@")[2]:
        raise ChunkTableError(f"the sender's chunk table has the digest {manifest.digest}, not that of {image}")
    known = (chunk_table_pb2.CHUNK_ENCODING_RAW, chunk_table_pb2.CHUNK_ENCODING_ZSTD)
    compressed = encodings == chunk_table_pb2.CHUNK_ENCODING_ZSTD
    wrong_sizes = ((sizes > 0) == manifest.zero).any() or sizes.max() > 2 * manifest.chunk_size_bytes
    if wrong_sizes or sizes.min() < 0 or not (np.isin(encodings, known) | manifest.zero).all():
        raise ChunkTableError(f"the chunk table of {image} has impossible stored sizes or encodings")
    return ChunkTable(manifest, sizes, compressed)
