from pathlib import Path

import pytest
from fleetcast_agent.receiving.multicast.memory import MemoryPlan
from fleetcast_agent.settings import AgentSettings, parse_bytes, save_server_address
from fleetcast_kit.errors import InvalidArgumentError, NotFoundError
from fleetcast_wire.geometry import Geometry


@pytest.mark.parametrize(
    ("text", "size_bytes"), [("128MiB", 128 << 20), ("1G", 1 << 30), ("65536", 65536), (" 2 gib", 0), ("64k", 65536)]
)
def test_sizes_are_read_as_people_write_them(text: str, size_bytes: int) -> None:
    if size_bytes:
        assert parse_bytes(text) == size_bytes
    else:
        with pytest.raises(InvalidArgumentError, match="is not a size"):
            parse_bytes(text)


def test_the_server_is_the_one_enrolled_with_unless_another_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="run fleetcast-agent enrol first"):
        AgentSettings.load(state_dir=tmp_path).server_address()
    save_server_address(tmp_path, "server:7443")
    assert AgentSettings.load(state_dir=tmp_path).server_address() == "server:7443"
    assert AgentSettings.load(state_dir=tmp_path, server="other:1").server_address() == "other:1"


@pytest.mark.parametrize("limit_mib", [64, 128, 256, 384, 1024])
def test_windows_and_their_views_fit_the_memory(limit_mib: int) -> None:
    plan = MemoryPlan.of(limit_mib << 20)
    codewords = max(4, plan.symbols_bytes // (3 * 1_408_000))  # as a sender would choose, see its geometry
    geometry = Geometry(1408, 1000, min(codewords, 32))
    memories = plan.memories(geometry, 1 << 30)
    assert 2 <= memories.count <= 16
    if limit_mib > 64:
        assert memories.count * geometry.window_symbols * (1408 + 200) <= plan.windows_bytes
    assert plan.windows_bytes <= limit_mib << 20


def test_a_small_image_gets_small_windows() -> None:
    memories = MemoryPlan.of().memories(Geometry(1408, 1000, 32), 10)
    memory = memories.take()
    assert memory is not None
    assert len(memory.source) == 10
