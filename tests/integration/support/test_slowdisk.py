import os
import time
from pathlib import Path

import pytest

from tests.support.slowdisk import SlowDisk, why_unavailable

pytestmark = pytest.mark.skipif(bool(why_unavailable()), reason=why_unavailable() or "it is available")


def test_a_slow_disk_flushes_slowly_and_keeps_what_was_written(tmp_path: Path) -> None:
    content = os.urandom(4 << 20)
    with SlowDisk(tmp_path / "disk", 4 << 20, 8 << 20) as disk:
        start = time.monotonic()
        with disk.device.open("r+b") as device:
            device.write(content)
            device.flush()
            os.fsync(device.fileno())
        assert time.monotonic() - start > 0.3
    assert (tmp_path / "disk").read_bytes() == content
