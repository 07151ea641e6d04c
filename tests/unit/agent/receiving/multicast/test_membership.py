from fleetcast_agent.receiving.multicast.sockets.membership import igmp_report, internet_checksum


def test_a_report_names_the_group_and_sums_up() -> None:
    report = igmp_report("239.192.1.7")
    assert report[:2] == b"\x16\x00"
    assert report[4:] == bytes((239, 192, 1, 7))
    assert internet_checksum(report) == 0
