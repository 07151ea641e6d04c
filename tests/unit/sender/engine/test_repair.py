import numpy as np
from fleetcast_sender.engine.repair import ParityPrediction, WindowRepair
from fleetcast_wire.geometry import Geometry
from hypothesis import given
from hypothesis import strategies as st

GEOMETRY = Geometry(512, codeword_symbols=100, window_codewords=4, parity_symbols=64, codec="leopard-rs16")
PLAIN = Geometry(512, codeword_symbols=100, window_codewords=4)
SHAPE = GEOMETRY.shape(400)


def window(predicted: int = 0, members: int = 3, geometry: Geometry = GEOMETRY) -> WindowRepair:
    repair = WindowRepair(0, SHAPE, geometry, predicted=predicted, members=members, opened_at=0.0)
    repair.take(100_000)
    repair.complete_round(0.0)
    return repair


def deficits(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array(values, np.int32)


def test_the_maximum_of_each_codeword_is_sent_row_by_row() -> None:
    repair = window()
    repair.report(1, deficits(2, 0, 1, 0), 0.0, 0.03)
    repair.report(1, deficits(1, 0, 3, 0), 0.0, 0.03)
    assert repair.answer()
    assert repair.take(100).tolist() == [0, 2, 4, 6, 10]


def test_rows_are_always_fresh() -> None:
    repair = window(predicted=2)
    sent = []
    for round_number in (1, 2, 3):
        repair.report(round_number, deficits(1, 1, 1, 1), 0.0, 0.03)
        assert repair.answer()
        sent += repair.take(100).tolist()
        repair.complete_round(0.0)
    assert sent == list(range(8, 20))


def test_a_late_report_on_an_earlier_round_is_met_by_what_was_sent_since() -> None:
    repair = window()
    repair.report(1, deficits(3, 3, 3, 3), 0.0, 0.03)
    repair.answer()
    repair.take(100)
    repair.complete_round(0.0)
    repair.report(1, deficits(2, 2, 2, 2), 0.0, 0.03)
    assert not repair.answer()


def test_gathering_ends_early_when_everybody_has_reported() -> None:
    repair = window(members=2)
    assert not repair.report(1, deficits(1, 0, 0, 0), 5.0, 0.03)
    assert repair.gather_until == 5.03
    assert repair.report(1, deficits(1, 0, 0, 0), 5.0, 0.03)


def test_a_deficit_beyond_a_quarter_waits_for_the_next_pass() -> None:
    repair = window()
    repair.report(1, deficits(26, 0, 0, 0), 0.0, 0.03)
    assert repair.gather_until is None


def test_the_few_that_lack_far_more_cost_a_large_group_nothing() -> None:
    repair = window(members=1000)
    repair.report(1, deficits(20, 20, 20, 20), 0.0, 0.03)
    repair.report(1, deficits(1, 0, 0, 0), 0.0, 0.03)
    repair.report(1, deficits(0, 9, 0, 0), 0.0, 0.03)
    assert repair.answer()
    assert repair.take(100).tolist() == [0, 1, 5, 9, 13, 17, 21, 25, 29, 33]


def test_in_a_small_group_nobody_is_an_exception() -> None:
    repair = window(members=20)
    repair.report(1, deficits(20, 20, 20, 20), 0.0, 0.03)
    assert repair.answer()
    assert len(repair.take(1000)) == 80


def test_without_parity_the_lost_symbols_themselves_are_repeated() -> None:
    repair = window(geometry=PLAIN)
    lost = np.zeros(400, np.int32)
    lost[[5, 77]] = 1
    repair.report(1, lost, 0.0, 0.03)
    assert repair.answer()
    assert repair.take(100).tolist() == [5, 77]


@given(st.lists(st.lists(st.integers(0, 25), min_size=4, max_size=4), min_size=1, max_size=10), st.integers(0, 20))
def test_whatever_is_reported_enough_is_sent_and_never_more_than_the_maximum(
    reports: list[list[int]], predicted: int
) -> None:
    repair = window(predicted=predicted, members=len(reports))
    for report in reports:
        repair.report(1, deficits(*report), 0.0, 0.03)
    repair.answer()
    symbols = repair.take(100_000)
    rows = np.bincount(symbols % 4, minlength=4)
    assert rows.tolist() == [max(column) for column in zip(*reports, strict=True)]
    assert len(set(symbols.tolist())) == len(symbols)
    assert symbols.min(initial=predicted * 4) >= predicted * 4


def test_few_receivers_need_no_prediction() -> None:
    prediction = ParityPrediction(GEOMETRY)
    prediction.learn(0, [5] * 10, members=10)
    assert prediction.rows == 0


def test_many_reports_raise_the_prediction_and_hardly_any_lower_it() -> None:
    prediction = ParityPrediction(GEOMETRY)
    prediction.learn(0, [3] * 500 + [4] * 15, members=1000)
    assert prediction.rows == 3
    prediction.learn(3, [1] * 10, members=1000)
    assert prediction.rows == 3
    prediction.learn(3, [], members=1000)
    assert prediction.rows == 2


def test_measured_loss_predicts_before_the_first_report() -> None:
    prediction = ParityPrediction(GEOMETRY)
    prediction.expect(np.full(300, 0.05), members=1000)
    assert 8 <= prediction.rows <= 16
    prediction.learn(prediction.rows, [], members=1000)
    rows = prediction.rows
    prediction.expect(np.full(300, 0.2), members=1000)
    assert prediction.rows == rows
