"""One transmission to two machines over IPv6 in the network namespace that this process is in."""

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.integration.sender_site import running_site


def make_network() -> None:
    """Make an interface that is up and has an IPv6 address alone."""
    for command in (
        "link set lo up",
        "link add first type veth peer name second",
        "link set first up",
        "link set second up",
        "-6 address add fd77::1/64 dev first nodad",
    ):
        subprocess.run(["ip", *command.split()], check=True)


async def main() -> None:
    """Receive; print how."""
    with tempfile.TemporaryDirectory() as folder:
        async with running_site(Path(folder), interface="first", loop=True) as site:
            site.interface = "first"
            first_group = site.scheduler.registrations[0].first_group
            error = await site.start("a", "b", group=first_group)
            contents = await asyncio.gather(site.receive("a"), site.receive("b"))
            right = not error and set(contents) == {site.image.content} and not site.totals.unicast_bytes
            print("received by multicast" if right else f"wrong: {error} {site.totals}")


if __name__ == "__main__":
    make_network()
    asyncio.run(main())
