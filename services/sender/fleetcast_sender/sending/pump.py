"""The pump: the thread that sends what the engine says.

It alone touches the engine. Each turn first takes what receivers said, so that the engine decides by the newest; then
looks whether the receivers have room; then asks the engine for the next symbols, hands out what else it wants - what to
tell receivers, windows to load - so that others work while this thread seals and sends; and sends, paced. Windows are
read and encoded by another thread (`preparing`), since disks and codecs would make gaps in what is sent.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from fleetcast_kit.errors import FleetcastError
from fleetcast_kit.process import semconv, telemetry
from fleetcast_wire.errors import RunsError
from fleetcast_wire.keys import SenderKeys
from fleetcast_wire.memory import Buffer, Symbols
from fleetcast_wire.packet import Kind, Mark, datagram_bytes, pack_mark
from fleetcast_wire.prover import Prover
from fleetcast_wire.seal import Sealer
from opentelemetry import trace
from opentelemetry.trace import Span

from fleetcast_sender.engine.engine import Engine, Phase
from fleetcast_sender.engine.messages import Deficits, Join, Reception, Told, UnicastReason
from fleetcast_sender.engine.pacing import Pacer, burst_datagrams
from fleetcast_sender.engine.passes import Pass, SendMark, Train
from fleetcast_sender.engine.policy import SlowAction, SlowPolicy
from fleetcast_sender.engine.rate import RateController
from fleetcast_sender.sending.claims import RepairClaims, possible
from fleetcast_sender.sending.hearing import GroupHearing, HearingPolicy
from fleetcast_sender.sending.link import Link
from fleetcast_sender.sending.preparing import Preparer
from fleetcast_sender.sending.snapshot import Snapshot
from fleetcast_sender.sending.sockets import train_limit
from fleetcast_sender.sending.windows import WindowMemory

_logger = logging.getLogger(__name__)

_SLEEP_FROM_SECONDS = 0.00005
"""Shorter waits than the system's timers resolve are added up instead."""
_BURSTS_AT_ONCE, _TRAINS_AT_ONCE = 4, 32
"""Sealed together at most: the fixed cost of a turn counts once, and reports wait some milliseconds for its end. Where
bursts have to be short, half of the trains."""
_LOSSLESS = 0.001
"""Receivers that lose more may be behind switches that keep little: bursts are short then."""
_UPDATE_SECONDS = 0.05
_HELD_SECONDS = 0.005
"""How long the pump waits for a report at once while receivers hold it back."""
_STANDSTILL_SECONDS = 1.0
"""A turn that came so much later than it should shows that this process stood still, or its host."""
_LISTEN_SECONDS = 0.2
"""So long reports are taken first, after a standstill: they wait in other threads."""
_SIGN_SECONDS = 0.02
"""So often at least something signed is sent in a pass: receivers believe no more than that and what came since."""
_PROBE_SECONDS = 0.1
"""Between the datagrams that tell, while nobody hears, whether somebody does again."""
_FEEDBACK_LIMIT_SECONDS = 1.0
_LOOK_SECONDS = 0.5

Input = Callable[[float], None]
"""One input of the engine: called in the pump's thread with the time."""


class TrainSocket(Protocol):
    """What the pump sends by."""

    def send_train(self, train: memoryview) -> None:
        """Send datagrams of equal size that lie end to end."""
        ...

    def send(self, datagram: bytes) -> None:
        """Send one datagram of any size."""
        ...

    def close(self) -> None:
        """Release the port."""
        ...


class Pump:
    """Drives one engine until it is stopped.

    Args:
        engine: touched by the pump's thread alone from `start` on.
        controller: likewise.
        memory: windows of the engine's passes.
        keys: of the transmission; never used by another pump.
        socket: closed at the end.
        link: shared with other transmissions.
        slow_policy: what becomes of slow receivers.
        wire_overhead_bytes: headers below UDP's payload, for the rate.
        deliver: called in the pump's thread with messages for receivers.
        failed: called in one of the pump's threads when it cannot go on.
        slow: called in the pump's thread with a receiver that is to be moved to a separate lane.
        apart: called in the pump's thread with a receiver that is served by unicast for a while, and whether that is
            because it hears nothing; else it is too slow.
        hearing: when receivers are taken to hear nothing.
        span: of the transmission; each pass becomes a span below it.
    """

    def __init__(
        self,
        engine: Engine,
        controller: RateController,
        memory: WindowMemory,
        *,
        keys: SenderKeys,
        socket: TrainSocket,
        link: Link,
        slow_policy: SlowPolicy,
        wire_overhead_bytes: int,
        deliver: Callable[[list[tuple[int, Told]]], None],
        failed: Callable[[FleetcastError], None],
        slow: Callable[[int], None],
        apart: Callable[[int, bool], None],
        hearing: HearingPolicy,
        span: Span,
    ) -> None:
        self.engine = engine
        self.controller = controller
        geometry = engine.geometry
        payload = datagram_bytes(geometry.symbol_bytes)
        self._payload_bytes = payload
        self._train = train_limit(payload)
        self._limit = self._train * _TRAINS_AT_ONCE
        self._datagram_bits = (payload + wire_overhead_bytes) * 8
        self._sealer = Sealer(keys, geometry.symbol_bytes, self._limit)
        self._prover = Prover(self._sealer, geometry.symbol_bytes)
        self._signed_at = 0.0
        self._sending = (0, 0)
        """Pass and window of which source symbols are sent."""
        self._memory = memory
        self._socket = socket
        self._link = link
        self._deliver = deliver
        self._failed = failed
        self._slow_policy = slow_policy
        self._slow = slow
        self._apart = apart
        self._hearing = GroupHearing(hearing)
        self._claims = RepairClaims(geometry.window_symbols)
        self._context = trace.set_span_in_context(span)
        self._traced: tuple[Pass, Span] | None = None
        controller.slowness.policy = slow_policy
        self._inputs: deque[Input] = deque()
        self._woken = threading.Event()
        self._stopping = False
        self._pacer = Pacer()
        self._carried = 0.0  # bits per second at which the receivers' links carry a burst
        self._update_at = 0.0
        self._turn_at = 0.0
        """When the next turn should begin at the latest."""
        self._listen_until = 0.0
        self._probe_at = 0.0
        self.snapshot = Snapshot()
        """Replaced a few times a second."""
        self._rate = 0
        self._measured = (0.0, 0)
        self._sender = threading.Thread(target=self._run, name="fleetcast-pump", daemon=True)
        self._preparer = Preparer(engine, memory, self.put, self._cannot_prepare)

    @property
    def sent_datagrams(self) -> int:
        """Datagrams sent so far: the packet counter."""
        return self._sealer.counter

    @property
    def group_bits_per_second(self) -> int:
        """What the group was sent lately, if a pass runs, else 0. For any thread."""
        return self._rate if self.engine.phase is Phase.SENDING else 0

    def start(self) -> None:
        """Begin."""
        self._preparer.start()
        self._sender.start()

    def put(self, given: Input) -> None:
        """Hand an input to the engine, from any thread."""
        self._inputs.append(given)
        self._woken.set()

    def ready(self, seat: int, join: Join) -> None:
        """Note that a receiver hears the group, or is ready to fetch, from any thread."""

        def take(now: float) -> None:
            if not join.unicast_only:  # what hears no group does not bound its rate
                self._take_in(seat, join, now)
            self.engine.ready(seat, now)

        self.put(take)

    def report(self, seat: int, reception: Reception) -> None:
        """Hand in a receiver's totals, from any thread."""

        def take(now: float) -> None:
            sent = self._sealer.counter
            said = possible(reception, sent)
            self.engine.heard(seat, now)
            self.controller.report(seat, said, sent, now)
            self._hearing.report(seat, said.highest_packet_counter, sent, now)

        self.put(take)

    def deficits(self, seat: int, deficits: Deficits) -> None:
        """Hand in what one window lacks at a receiver, from any thread."""
        symbols = sum(
            max(0, value) * max(0, length)
            for value, length in zip(deficits.run_values, deficits.run_lengths, strict=False)
        )

        def take(now: float) -> None:
            if not self._claims.takes(seat, symbols, self.engine.totals.source_symbol_count):
                self.engine.heard(seat, now)
                return
            try:
                self.engine.deficits(seat, deficits, now)
            except RunsError as error:
                self.engine.dismiss(seat, f"its report on window {deficits.window} makes no sense: {error}")

        self.put(take)

    def forget(self, seat: int) -> None:
        """Leave a receiver out of the rate, from the pump's thread."""
        self._claims.forget(seat)
        self.controller.forget(seat)
        self._hearing.forget(seat)

    def stop(self) -> None:
        """End both threads and release everything. Blocks shortly; not for the pump's own thread."""
        self._stopping = True
        self._woken.set()
        if self._sender.is_alive():
            self._sender.join()

    # The sending thread

    def _take_in(self, seat: int, join: Join, now: float) -> None:
        """Let the rate follow a receiver too, and notice if it hears nothing."""
        self._claims.join(seat, self.engine.totals.source_symbol_count)
        self._hearing.join(seat, self._sealer.counter, now)
        self.controller.join(
            seat,
            self._sealer.counter,
            now,
            window_memory_bytes=join.window_memory_bytes,
            receive_buffer_bytes=join.receive_buffer_bytes,
            link_bits_per_second=join.link_bits_per_second,
        )

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
        except FleetcastError as error:
            self._failed(error)
        except Exception as error:  # the thread's outermost frame
            _logger.exception("a transmission failed")
            self._failed(FleetcastError(f"the sender failed: {error}", reason="INTERNAL"))
        finally:
            self._stopping = True
            if self._traced:
                self._traced[1].end()
            self._link.leave(self)
            self._preparer.stop()
            self._socket.close()
            self._memory.clear()

    def _cannot_prepare(self, error: FleetcastError) -> None:
        """End both threads; called on the preparing one."""
        self._failed(error)
        self._stopping = True
        self._woken.set()

    def _wait(self, seconds: float) -> None:
        """Wait for an input, or so long."""
        self._turn_at = time.monotonic() + seconds
        self._woken.wait(seconds)
        self._woken.clear()

    def _turn(self) -> None:
        now = time.monotonic()
        if self._turn_at and now - self._turn_at > _STANDSTILL_SECONDS:
            self._note_standstill(now)
        self._turn_at = now
        while self._inputs:
            self._inputs.popleft()(now)
        if now < self._listen_until:
            self._wait(self._listen_until - now)
            return
        if now >= self._update_at:
            self._update(now)
        if self._hearing.holding and self.engine.phase is Phase.SENDING:
            self._probe(now)
            return
        if not self.controller.may_send(self._sealer.counter, now):
            self.engine.wait(now)
            self._serve(now)
            self._wait(_HELD_SECONDS)
            return
        controller = self.controller
        burst = burst_datagrams(controller.rate, self._carried, self._datagram_bits, self._train, self._limit)
        most = self._limit if self._carried else self._limit // 2
        sent = self.engine.next(now, min(_BURSTS_AT_ONCE * burst, most))
        self._serve(now)
        if isinstance(sent, Train):
            self._send(sent, burst, now)
        elif isinstance(sent, SendMark):
            self._send_mark(sent.pass_number, sent.mark, now)
        else:
            self._send_proofs(self._prover.flush(), now)
            wait = self.engine.wake_at(now) - now
            if wait > 0 and not self._inputs:
                self._wait(wait)

    def _send(self, symbols: Train, burst_count: int, now: float) -> None:
        """Seal symbols, and send them in bursts that are paced."""
        self._note_position(symbols, now)
        payloads = self._payloads(symbols)
        sealed = self._sealer.seal_symbols(symbols.kind, symbols.pass_number, symbols.window, symbols.symbols, payloads)
        rate = self.controller.rate
        burst_bytes, train_bytes = burst_count * self._payload_bytes, self._train * self._payload_bytes
        for start in range(0, len(sealed), burst_bytes):
            delay = self._pacer.delay(now)
            if delay > _SLEEP_FROM_SECONDS:
                time.sleep(min(delay, _UPDATE_SECONDS))
            burst = sealed[start : start + burst_bytes]
            for train_start in range(0, len(burst), train_bytes):
                self._socket.send_train(burst[train_start : train_start + train_bytes])
            now = time.monotonic()
            self._pacer.sent(len(burst) // self._payload_bytes * self._datagram_bits, rate, now)
        if symbols.consecutive:
            self._sealer.position = symbols.window, int(symbols.symbols[-1]) + 1
        number = symbols.pass_number
        self._send_proofs(self._prover.note(symbols.kind, number, symbols.window, symbols.symbols, payloads), now)
        if now - self._signed_at > _SIGN_SECONDS:
            self._send_proofs(self._prover.flush(), now)

    def _note_position(self, train: Train, now: float) -> None:
        """Say where the pass is before it goes on somewhere else than the receivers can know."""
        sending = train.pass_number, train.window
        if not train.consecutive or sending == self._sending:
            return
        follows = sending == (self._sending[0], self._sending[1] + 1)
        self._sending = sending
        if not follows and self.engine.current:
            self._send_proofs(self._prover.finish(), now)
            self._sealer.position = train.window, int(train.symbols[0])
            self._send_mark(train.pass_number, Mark((), self.engine.current.layout.window_count), now)

    def _send_mark(self, pass_number: int, mark: Mark, now: float) -> None:
        """Send a mark after the proofs of all that was sent before it: receivers count what they lack then."""
        self._send_proofs([*self._prover.finish(), self._sealer.seal_mark(pass_number, pack_mark(mark))], now)

    def _send_proofs(self, datagrams: list[bytes], now: float) -> None:
        for datagram in datagrams:
            self._signed_at = now
            self._socket.send(datagram)

    def _payloads(self, train: Train) -> Symbols | Sequence[Buffer]:
        if train.kind is Kind.SOURCE:
            return self._memory.get(train.pass_number, train.window).source
        return self._memory.parity(train.pass_number, train.window, train.symbols)

    def _serve(self, now: float) -> None:
        """Hand out the messages and the work that the engine has."""
        if told := self.engine.take_told():
            self._deliver(told)
        for seat, join in self.engine.take_returned():
            self._take_in(seat, join, now)
        for item in self.engine.take_work():
            self._preparer.submit(item)
        if (self._traced and self._traced[0]) is not self.engine.current:
            self._trace_pass()

    def _trace_pass(self) -> None:
        """End the span of the pass that is over, and begin that of the running one."""
        if self._traced:
            ended, span = self._traced
            span.set_attribute(semconv.SENT_DATAGRAMS, ended.source_symbol_count + ended.repair_symbol_count)
            span.end()
        self._traced = None
        if current := self.engine.current:
            attributes = {semconv.PASS: current.number, semconv.CHUNK_COUNT: len(current.layout.chunks)}
            span = telemetry.tracer(__name__).start_span("pass", context=self._context, attributes=attributes)
            self._traced = current, span

    def _update(self, now: float) -> None:
        """Let the rate follow the reports, and the engine the rate."""
        engine, controller = self.engine, self.controller
        interval = max(_UPDATE_SECONDS, engine.report_interval_seconds)
        self._update_at = now + _UPDATE_SECONDS
        controller.update(self._sealer.counter, now, interval)
        active = engine.current is not None
        share = self._link.share(self, controller.demand if active else 0)
        if share:
            controller.link_bits_per_second = share
        if engine.current:
            engine.current.feedback_seconds = min(controller.lag_seconds(now), _FEEDBACK_LIMIT_SECONDS)
            losses = controller.loss_shares()
            self._carried = controller.slowest_link if max(losses, default=0.0) < _LOSSLESS else 0.0
            self._prover.lossy = max(losses, default=0.0) > 0
            engine.prediction.expect(np.asarray(losses, np.float64), engine.current.members)
        for seat in controller.slowness.seats:
            self._part_with(seat)
        self._part_with_deaf(now, interval)
        self._look(now)

    def _look(self, now: float) -> None:
        """Renew the snapshot."""
        last, counter = self._measured
        sending = self.engine.current is not None or self.engine.lacking
        if now - last < _LOOK_SECONDS and sending == self.snapshot.sending:
            return
        if now - last >= _LOOK_SECONDS:
            self._rate = int((self._sealer.counter - counter) * self._datagram_bits / (now - last))
            self._measured = (now, self._sealer.counter)
        totals, size = self.engine.totals, self.engine.geometry.symbol_bytes
        self.snapshot = Snapshot(
            sending,
            self.engine.pass_number,
            totals.source_symbol_count * size,
            totals.repair_symbol_count * size,
            totals.chunk_count,
            self._rate,
            self.engine.member_count,
            self.engine.participant_count,
            self.engine.unicast_machines(),
        )

    def _part_with(self, seat: int) -> None:
        """Let a slow receiver bound the others no longer."""
        action = self._slow_policy.action
        if action is SlowAction.KEEP:
            return
        _logger.info("a receiver is below %.0f %% of the others: %s", self._slow_policy.threshold * 100, action)
        self.controller.forget(seat)
        if action is SlowAction.UNICAST:
            self.engine.move_to_unicast(seat)
            self._apart(seat, False)
        elif action is SlowAction.DISCONNECT:
            self.engine.dismiss(
                seat, "this machine is too slow for the group, and the session's policy is to disconnect"
            )
        else:
            self._slow(seat)

    def _part_with_deaf(self, now: float, interval_seconds: float) -> None:
        """Serve receivers by unicast that hear nothing: a switch, a firewall or their radio drops multicast."""
        held = self._hearing.holding
        for seat in self._hearing.judge(self._sealer.counter, now, interval_seconds):
            _logger.warning("a receiver hears nothing of the group and is served by unicast for a while")
            self.forget(seat)
            self.engine.move_to_unicast(seat, UnicastReason.DEAF)
            self._apart(seat, True)
        if self._hearing.holding and not held:
            _logger.warning("no receiver hears the group any more: sending waits until one does")

    def _note_standstill(self, now: float) -> None:
        """Hear the receivers first: in the time that this process stood still, nobody was silent."""
        self._hearing.stood_still(now - self._turn_at)
        self._listen_until = now + _LISTEN_SECONDS

    def _probe(self, now: float) -> None:
        """Send a datagram now and then while nobody hears. No time passes for the engine: it would forget them all."""
        self._serve(now)
        current = self.engine.current
        if current and now >= self._probe_at:
            self._probe_at = now + _PROBE_SECONDS
            mark = Mark((), current.layout.window_count)
            self._send_mark(current.number, mark, now)
        self._wait(_HELD_SECONDS)
