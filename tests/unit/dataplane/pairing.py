"""A sender's engine and the reception of machines over seeded lossy links, with a clock that is a number."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from fleetcast_sender.engine.engine import Engine, Phase
from fleetcast_sender.engine.messages import (
    Deficits,
    Dismissed,
    Holding,
    Join,
    Offered,
    PassEnded,
    Planned,
    Reception,
    Told,
    Welcomed,
)
from fleetcast_sender.engine.passes import SendMark, Train, Work, WorkItem
from fleetcast_sender.engine.policy import TransmissionPolicy
from fleetcast_sender.sending.windows import WindowMemory
from fleetcast_wire.geometry import Geometry, PassLayout
from fleetcast_wire.keys import SenderKeys
from fleetcast_wire.packet import Kind, Mark, pack_mark
from fleetcast_wire.prover import Prover
from fleetcast_wire.runs import pack_runs
from fleetcast_wire.seal import Sealer

from tests.support.lossy import Impairment, LossyLink
from tests.unit.agent.receiving.receiving import MemoryReceiver
from tests.unit.agent.receiving.transmitting import StoredImage

STREAM_SECONDS = 0.002
"""How long a message on a receiver's stream is under way."""
REPORT_SECONDS = 0.1
TRAIN_SYMBOLS = 16
SECONDS_PER_DATAGRAM = 0.0001


class ImageSource:
    """The chunks of an image in memory."""

    def __init__(self, image: StoredImage) -> None:
        self.image = image

    def prefetch(self, chunks: Sequence[int]) -> None:
        pass

    def stored(self, chunk: int) -> bytes:
        return self.image.stored[chunk]


@dataclass(eq=False)
class PairReceiver:
    """One machine: its reception, its link, and its stream."""

    machine: str
    link: LossyLink
    held: np.ndarray[tuple[int], np.dtype[np.bool_]]
    seat: int = 0
    memory: MemoryReceiver | None = None
    done: bool = False
    dismissed: str = ""
    stalled: bool = False
    """While true it does nothing at all, as a stopped process."""
    unicast_only: bool = False
    joined: bool = False
    report_at: float = 0.0
    inbox: list[tuple[float, Told]] = field(default_factory=list)
    unicast_chunks: int = 0

    @property
    def complete(self) -> bool:
        return self.memory is not None and self.memory.complete

    def lose_everything(self) -> None:
        """Forget what is held, as a machine with another disk does."""
        self.memory = None
        self.held = np.zeros_like(self.held)


class Pair:
    """One sender and its receivers. The same seed gives the same story."""

    def __init__(
        self,
        image: StoredImage,
        geometry: Geometry,
        *,
        receivers: int = 1,
        impairment: Impairment | None = None,
        seed: int = 1,
        policy: TransmissionPolicy | None = None,
        ring: int = 4,
    ) -> None:
        self.image, self.geometry, self.ring = image, geometry, ring
        self.policy = policy or TransmissionPolicy(unicast_receiver_count=0, start_grace_seconds=0.2)
        self.now = 100.0
        self.impairment = impairment or Impairment()
        self.seed = seed
        self.receivers = [self.new_receiver(index) for index in range(receivers)]
        self.sent_datagrams = 0
        self.forge: Callable[[list[bytes]], list[bytes]] = lambda datagrams: datagrams
        """What a member makes of what the sender sends next: all that the receivers get."""
        self._seats = 0
        self.restart_sender()

    def new_receiver(self, index: int) -> PairReceiver:
        held = np.zeros(self.image.manifest.chunk_count, np.bool_)
        return PairReceiver(f"machines/{index}", LossyLink(self.seed * 1000 + index, self.impairment), held)

    def restart_sender(self) -> None:
        """Begin anew with fresh keys, as a sender does after a crash; receivers lose their streams."""
        self.keys = SenderKeys.fresh()
        self.sealer = Sealer(self.keys, self.geometry.symbol_bytes, TRAIN_SYMBOLS)
        self.prover = Prover(self.sealer, self.geometry.symbol_bytes)
        self.prover.lossy = self.impairment.loss > 0
        self._sending = (0, 0)
        sizes = np.array([len(stored) for stored in self.image.stored], np.int64)
        self.engine = Engine(self.geometry, sizes, self.policy, window_slots=4)
        self.memory = WindowMemory(self.geometry, ImageSource(self.image))
        self.outgoing: list[tuple[float, Callable[[float], None]]] = []
        for receiver in self.receivers:
            receiver.joined = False
            receiver.inbox = []

    def join(self, receiver: PairReceiver) -> None:
        """Open a new stream: what is held stays, everything under way is lost."""
        self._seats += 1
        seat = receiver.seat = self._seats
        held = receiver.held | self.image.manifest.zero
        if receiver.memory is not None:
            held = ~receiver.memory.wanted
        memory = MemoryReceiver(self.keys, self.geometry, self.image, ring=self.ring)
        memory.wanted[:] = ~held
        if receiver.memory is not None:
            memory.content[:] = receiver.memory.content
        receiver.held, receiver.memory, receiver.joined, receiver.inbox = held, memory, True, []
        receiver.done, receiver.dismissed = False, ""
        receiver.link = LossyLink(self.seed * 1000 + seat, self.impairment)
        join = Join(
            receiver.machine, held.copy(), unicast_only=receiver.unicast_only, codecs=frozenset({"leopard-rs16"})
        )
        self._say(lambda now: self.engine.join(seat, join, now))
        self._say(lambda now: self.engine.ready(seat, now))

    def leave(self, receiver: PairReceiver) -> None:
        """End a stream, as when the machine is switched off."""
        seat = receiver.seat
        receiver.joined = False
        receiver.inbox = []
        self._say(lambda now: self.engine.leave(seat, now))

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; return whether `until` became true, by default that everybody has everything."""
        reached = until or (lambda: all(receiver.complete for receiver in self.receivers))
        end = self.now + seconds
        while self.now < end:
            self._turn()
            if reached():
                return True
        return False

    def join_all(self) -> None:
        for receiver in self.receivers:
            self.join(receiver)

    def let_dismissed_join(self) -> bool:
        """Do as agents do: come back when dismissed; return whether everybody has everything."""
        for receiver in self.receivers:
            if receiver.dismissed and not receiver.joined:
                self.join(receiver)
        return all(receiver.complete for receiver in self.receivers)

    def _say(self, what: Callable[[float], None]) -> None:
        self.outgoing.append((self.now + STREAM_SECONDS, what))

    def _turn(self) -> None:
        now = self.now
        while self.outgoing and self.outgoing[0][0] <= now:
            self.outgoing.pop(0)[1](now)
        sent = self.engine.next(now, TRAIN_SYMBOLS)
        if sent is None and (sent := self.engine.next(now, TRAIN_SYMBOLS)) is None:
            assert self.engine.wake_at(now) > now, "nothing is to be sent, and the sender would not wait"
        self._work()
        for seat, told in self.engine.take_told():
            for receiver in self.receivers:
                if receiver.seat == seat and receiver.joined:
                    receiver.inbox.append((now + STREAM_SECONDS, told))
        datagrams = self._datagrams(sent)
        self.sent_datagrams += len(datagrams)
        heard = self.forge(datagrams)
        for receiver in self.receivers:
            if receiver.joined and not receiver.unicast_only:
                for datagram in heard:
                    receiver.link.send(datagram, now)
            if not receiver.stalled:
                self._receive(receiver, now)
        self.now = now + max(SECONDS_PER_DATAGRAM * len(datagrams), 0.001 if not datagrams else 0)

    def _datagrams(self, sent: Train | SendMark | None) -> list[bytes]:
        match sent:
            case SendMark():
                return [*self.prover.finish(), self.sealer.seal_mark(sent.pass_number, pack_mark(sent.mark))]
            case Train():
                window = sent.pass_number, sent.window
                parity = sent.kind is Kind.PARITY
                payloads = self.memory.parity(*window, sent.symbols) if parity else self.memory.get(*window).source
                datagrams = self._position(sent)
                train = self.sealer.seal_symbols(sent.kind, sent.pass_number, sent.window, sent.symbols, payloads)
                size = len(train) // len(sent.symbols)
                datagrams += [bytes(train[start : start + size]) for start in range(0, len(train), size)]
                if sent.consecutive:
                    self.sealer.position = sent.window, int(sent.symbols[-1]) + 1
                return datagrams + self.prover.note(sent.kind, *window, sent.symbols, payloads)
        return []

    def _position(self, train: Train) -> list[bytes]:
        sending = train.pass_number, train.window
        if not train.consecutive or sending == self._sending:
            return []
        follows, self._sending = sending == (self._sending[0], self._sending[1] + 1), sending
        if follows or self.engine.current is None:
            return []
        before = self.prover.finish()
        self.sealer.position = train.window, int(train.symbols[0])
        mark = pack_mark(Mark((), self.engine.current.layout.window_count))
        return [*before, self.sealer.seal_mark(train.pass_number, mark)]

    def _work(self) -> None:
        for item in self.engine.take_work():
            layout: PassLayout = self.engine.layouts[item.pass_number]
            if item.work is Work.LOAD:
                self.memory.load(item.pass_number, layout, item.window, partial(self._loaded, item))
            elif item.work is Work.ENCODE:
                self._say(partial(self._encode, item))
            else:
                self.memory.release(item.pass_number, item.window)

    def _encode(self, item: WorkItem, now: float) -> None:
        self.memory.encode(item.pass_number, item.window, lambda: False)
        self.engine.encoded(item.pass_number, item.window)

    def _loaded(self, item: WorkItem, symbol_count: int) -> None:
        self.engine.loaded(item.pass_number, item.window, symbol_count)

    def _receive(self, receiver: PairReceiver, now: float) -> None:
        if not receiver.joined or receiver.memory is None:
            return
        memory, seat = receiver.memory, receiver.seat
        memory.now = now
        while receiver.inbox and receiver.inbox[0][0] <= now:
            self._take(receiver, receiver.inbox.pop(0)[1])
        memory.receive(receiver.link.receive(now))
        for event in memory.take_reports():
            values, lengths = pack_runs(event.deficits)
            deficits = Deficits(event.pass_number, event.window, event.round, values, lengths)
            self._say(lambda now, deficits=deficits: self.engine.deficits(seat, deficits, now))  # type: ignore[misc]
        for pass_number in memory.settled:
            holding = Holding(pass_number, ~memory.wanted)
            self._say(lambda now, holding=holding: self.engine.holding(seat, holding, now))  # type: ignore[misc]
        memory.settled.clear()
        if receiver.complete and not receiver.done:
            receiver.done = True
            self._say(lambda now: self.engine.done(seat, now))
        if now >= receiver.report_at:
            receiver.report_at = now + REPORT_SECONDS
            self._say(lambda now: self.engine.heard(seat, now))

    def _take(self, receiver: PairReceiver, told: Told) -> None:
        memory, seat = receiver.memory, receiver.seat
        assert memory is not None
        match told:
            case Planned():
                sizes = np.array([len(stored) for stored in self.image.stored], np.int64)
                memory.reception.start_pass(
                    told.pass_number, PassLayout(self.geometry, np.flatnonzero(told.chunks), sizes)
                )
            case PassEnded():
                memory.reception.end_pass(told.pass_number)
                memory.work()
            case Offered():
                for chunk in np.flatnonzero(told.chunks & memory.wanted).tolist():
                    start = chunk * self.image.manifest.chunk_size_bytes
                    size = self.image.manifest.chunk_bytes(chunk)
                    memory.content[start : start + size] = self.image.content[start : start + size]
                    memory.wanted[chunk] = False
                    receiver.unicast_chunks += 1
                holding = Holding(self.engine.pass_number, ~memory.wanted)
                self._say(lambda now: self.engine.holding(seat, holding, now))
            case Dismissed():
                receiver.dismissed = told.reason
                receiver.joined = False
            case Welcomed():
                pass

    @property
    def image_symbols(self) -> int:
        """Source symbols of the whole image."""
        return -(-sum(len(stored) for stored in self.image.stored) // self.geometry.symbol_bytes)

    def run_to(self, share: float) -> None:
        """Let time pass until this share of the image was sent."""
        assert self.run(60, lambda: self.engine.totals.source_symbol_count >= share * self.image_symbols)

    @property
    def sender_idle(self) -> bool:
        return self.engine.phase is Phase.IDLE

    def reception_of(self, receiver: PairReceiver) -> Reception:
        assert receiver.memory is not None
        counts = receiver.memory.reception.counts
        return Reception(counts.highest_packet_counter, counts.datagram_count)
