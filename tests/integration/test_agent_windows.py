"""What can be known here of an agent on Windows: that it asks Python for nothing that Python lacks there."""

import subprocess
import sys

SCRIPT = """
import sys
import fleetcast_agent.__main__, fleetcast_kit.joining.enrolment  # what they need of others is there on Windows as well
for name in [name for name in sys.modules if name.startswith(("fleetcast_agent", "fleetcast_kit", "fleetcast_wire"))]:
    del sys.modules[name]
for name in ("fcntl", "grp", "pwd", "resource", "syslog", "termios"):
    sys.modules[name] = None
sys.platform = "win32"
import fleetcast_agent.__main__, fleetcast_kit.joining.enrolment
from fleetcast_agent.receiving.multicast.sockets import datagrams
print(datagrams._LINUX)
"""


def test_enrolling_and_receiving_need_no_module_that_windows_lacks() -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, "False\n"), ended.stderr
