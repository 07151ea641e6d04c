from fleetcast_sender.engine.messages import UnicastReason
from fleetcast_sender.sending.snapshot import Snapshot


def test_two_lanes_together_name_all_machines_that_get_unicast() -> None:
    first = Snapshot(unicast_machines={UnicastReason.SLOW: ["machines/1"]})
    second = Snapshot(unicast_machines={UnicastReason.SLOW: ["machines/2"], UnicastReason.DEAF: ["machines/3"]})
    assert (first + second).unicast_machines == {
        UnicastReason.SLOW: ["machines/1", "machines/2"],
        UnicastReason.DEAF: ["machines/3"],
    }
