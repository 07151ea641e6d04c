import numpy as np
from fleetcast_sender.engine.engine import Engine, Phase
from fleetcast_sender.engine.messages import Deficits, Dismissed, Holding, Join, Offered, PassEnded, Planned, Welcomed
from fleetcast_sender.engine.passes import SendMark, Train, Work
from fleetcast_sender.engine.policy import TransmissionPolicy
from fleetcast_wire.geometry import Geometry
from fleetcast_wire.packet import Kind
from fleetcast_wire.runs import pack_runs

GEOMETRY = Geometry(512, codeword_symbols=10, window_codewords=2, parity_symbols=8, codec="leopard-rs16")
CODECS = frozenset({"leopard-rs16"})
NOTHING = np.zeros(8, np.bool_)
EVERYTHING = np.ones(8, np.bool_)


def make_engine(**policy: float) -> Engine:
    values = {"unicast_receiver_count": 0, "start_grace_seconds": 1.0, "lead_seconds": 0.0}
    engine_policy = TransmissionPolicy(**(values | policy))  # type: ignore[arg-type]
    return Engine(GEOMETRY, np.full(8, 5120, np.int64), engine_policy, window_slots=3)


def phase(engine: Engine) -> Phase:
    return engine.phase


def enter(engine: Engine, seat: int, now: float, held: "np.ndarray[tuple[int], np.dtype[np.bool_]]" = NOTHING) -> None:
    engine.join(seat, Join(f"machines/{seat}", held, codecs=CODECS), now)
    engine.ready(seat, now)


def do_work(engine: Engine, *, encode: bool = True) -> None:
    for item in engine.take_work():
        if item.work is Work.LOAD:
            engine.loaded(item.pass_number, item.window)
        elif item.work is Work.ENCODE and encode:
            engine.encoded(item.pass_number, item.window)


def send_everything(engine: Engine, now: float, seconds: float = 1.0) -> list[Train | SendMark]:
    sent = []
    end = now + seconds
    while now < end:
        message = engine.next(now, 100)
        do_work(engine)
        if message:
            sent.append(message)
        else:
            now += 0.01
    return sent


def test_a_receiver_is_welcomed_before_anything_else() -> None:
    engine = make_engine()
    enter(engine, 1, 0.0)
    assert isinstance(engine.take_told()[0][1], Welcomed)


def test_the_first_pass_waits_for_machines_that_are_expected_but_not_for_ever() -> None:
    engine = make_engine()
    engine.expect(["machines/1", "machines/2"], 0.0)
    enter(engine, 1, 0.0)
    engine.next(0.5, 10)
    assert phase(engine) is Phase.IDLE
    engine.next(1.1, 10)
    assert phase(engine) is Phase.SENDING


def test_the_first_pass_begins_at_once_when_all_expected_are_there() -> None:
    engine = make_engine()
    engine.expect(["machines/1"], 0.0)
    enter(engine, 1, 0.1)
    engine.next(0.1, 10)
    assert phase(engine) is Phase.SENDING


def test_a_plan_comes_before_the_first_symbol_by_the_lead() -> None:
    engine = make_engine(lead_seconds=0.05)
    enter(engine, 1, 0.0)
    assert engine.next(0.0, 10) is None
    assert isinstance(engine.take_told()[-1][1], Planned)
    for item in engine.take_work():
        engine.loaded(item.pass_number, item.window)
    assert engine.next(0.04, 10) is None
    assert isinstance(engine.next(0.06, 10), Train)


def test_only_what_somebody_lacks_is_sent() -> None:
    engine = make_engine()
    held = EVERYTHING.copy()
    held[3] = False
    enter(engine, 1, 0.0, held)
    trains = [message for message in send_everything(engine, 0.0) if isinstance(message, Train)]
    assert sum(len(train.symbols) for train in trains) == 10


def test_windows_that_nobody_needs_any_more_are_skipped() -> None:
    engine = make_engine()
    enter(engine, 1, 0.0)
    enter(engine, 2, 0.0)
    engine.next(0.0, 10)
    engine.take_work()
    engine.done(1, 0.0)
    engine.leave(2, 0.0)
    assert not [message for message in send_everything(engine, 0.1) if isinstance(message, Train)]
    assert phase(engine) is Phase.IDLE


def test_a_pass_that_ended_asks_for_holdings_and_goes_on_without_the_silent() -> None:
    engine = make_engine()
    enter(engine, 1, 0.0)
    enter(engine, 2, 0.0)
    send_everything(engine, 0.0, 0.4)
    ended = [seat for seat, told in engine.take_told() if isinstance(told, PassEnded)]
    assert ended == [1, 2]
    held = EVERYTHING.copy()
    held[0] = False
    engine.holding(1, Holding(1, held), 0.5)
    engine.next(0.5, 10)
    assert phase(engine) is Phase.ENDING
    engine.next(1.2, 10)
    assert phase(engine) is Phase.SENDING
    plans = [told for _, told in engine.take_told() if isinstance(told, Planned)]
    assert np.flatnonzero(plans[-1].chunks).tolist() == [0]


def test_the_last_few_chunks_go_by_unicast() -> None:
    engine = make_engine(unicast_receiver_count=1)
    held = EVERYTHING.copy()
    held[2] = False
    enter(engine, 1, 0.0, held)
    engine.next(0.0, 10)
    offers = [told for _, told in engine.take_told() if isinstance(told, Offered)]
    assert np.flatnonzero(offers[0].chunks).tolist() == [2]
    assert phase(engine) is Phase.IDLE
    engine.holding(1, Holding(0, EVERYTHING), 0.2)
    assert not engine.lacking


def test_offers_that_bring_nothing_end_with_a_reason() -> None:
    engine = make_engine(unicast_receiver_count=1, stuck_offer_count=3)
    engine.join(1, Join("machines/1", NOTHING, unicast_only=True), 0.0)
    engine.ready(1, 0.0)
    for turn in range(3):
        engine.holding(1, Holding(0, NOTHING), 0.1 * turn)
    dismissals = [told for _, told in engine.take_told() if isinstance(told, Dismissed)]
    assert "3 offers in a row brought nothing" in dismissals[0].reason
    assert engine.participant_count == 0


def test_a_receiver_that_the_geometry_does_not_fit_is_served_by_unicast() -> None:
    engine = make_engine()
    engine.join(1, Join("machines/1", NOTHING, codecs=frozenset()), 0.0)
    welcome = engine.take_told()[0][1]
    assert isinstance(welcome, Welcomed)
    assert welcome.unicast_only


def test_reports_are_asked_for_less_often_the_more_receivers_there_are() -> None:
    engine = make_engine()
    enter(engine, 0, 0.0)
    assert engine.report_interval_seconds == 0.05
    engine.expect(["machines/1", "machines/2"], 0.0)
    assert engine.report_interval_seconds == 0.1
    engine.expect([f"machines/{seat}" for seat in range(10_000)], 0.0)
    assert engine.report_interval_seconds == 2.0


def test_repair_takes_at_most_its_share_while_there_is_source_to_send() -> None:
    engine = make_engine()
    enter(engine, 1, 0.0)
    engine.next(0.0, 10)
    engine.prediction.rows = 8
    sent = [message for message in send_everything(engine, 0.0, 0.05) if isinstance(message, Train)]
    last = max(index for index, train in enumerate(sent) if train.kind is Kind.SOURCE)
    symbols = {kind: sum(len(t.symbols) for t in sent[:last] if t.kind is kind) for kind in Kind}
    assert 0 < symbols[Kind.PARITY] <= 0.3 / 0.7 * symbols[Kind.SOURCE] + 100


def test_nothing_is_due_while_a_repair_waits_for_its_parity() -> None:
    engine = make_engine()
    enter(engine, 1, 0.0)
    now = 0.0
    while not (engine.current and engine.current.source_symbol_count == 3 * GEOMETRY.window_symbols):
        now += 0 if engine.next(now, 100) else 0.001
        do_work(engine, encode=False)
    report = Deficits(1, 0, 1, *pack_runs(np.ones(2, np.int32)))
    for later in (now, now + 0.001, now + 0.1):  # the second comes when the first is being answered
        engine.deficits(1, report, later)
        while message := engine.next(later, 100):
            assert isinstance(message, SendMark)
        assert engine.wake_at(later) > later


def test_nothing_is_due_while_nobody_is_heard() -> None:
    engine = make_engine()
    enter(engine, 1, 0.0)
    engine.next(0.0, 10)
    do_work(engine)
    assert isinstance(engine.next(0.1, 10), Train)
    assert engine.next(4.0, 10) is None
    assert engine.wake_at(4.0) > 4.0
    engine.heard(1, 4.1)
    assert isinstance(engine.next(4.1, 10), Train)
