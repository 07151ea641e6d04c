from tests.support.loss import Loss, ruleset
from tests.support.lossy import Bursts


def test_no_loss_leaves_an_empty_table() -> None:
    assert "drop" not in ruleset({})


def test_every_port_has_its_own_rule() -> None:
    text = ruleset({"receiver0": Loss(fraction=0.01), "receiver1": Loss(fraction=1.0, tcp=True)})
    assert 'oifname "receiver0" meta l4proto udp numgen random mod 1000000 <= 9999 ' in text
    assert 'oifname "receiver1" meta l4proto { tcp, udp } numgen random mod 1000000 <= 999999 ' in text


def test_bursts_differ_by_seed_alone() -> None:
    bursts = Bursts(fraction=0.01, mean_length=20)
    first = ruleset({"receiver0": Loss(bursts=bursts, seed=1)})
    assert first == ruleset({"receiver0": Loss(bursts=bursts, seed=1)})
    assert first != ruleset({"receiver0": Loss(bursts=bursts, seed=2)})
