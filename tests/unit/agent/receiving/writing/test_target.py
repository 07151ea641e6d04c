import errno
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from fleetcast_agent.receiving.errors import TargetFailedError, TargetRefusedError
from fleetcast_agent.receiving.writing.medium import Medium
from fleetcast_agent.receiving.writing.target import Target
from fleetcast_wire.manifest import Manifest

CHUNK = 65536


def manifest(size_bytes: int, zeros: tuple[int, ...] = ()) -> Manifest:
    count = -(-size_bytes // CHUNK)
    digests = np.ones((count, 32), np.uint8)
    digests[list(zeros)] = 0
    return Manifest(size_bytes, CHUNK, digests)


def test_a_new_file_gets_the_size_of_the_image_and_holes_for_its_zeros(tmp_path: Path) -> None:
    image = manifest(100 * CHUNK, tuple(range(1, 99)))
    target = Target(tmp_path / "disk")
    assert target.size_bytes == -1
    assert not (tmp_path / "disk").exists()
    target.prepare(image)
    target.zero(image.zero, image)
    target.write(0, b"x" * CHUNK)
    target.write(99 * CHUNK, memoryview(b"y" * CHUNK))
    target.flush()
    target.close()
    status = (tmp_path / "disk").stat()
    assert status.st_size == 100 * CHUNK
    assert status.st_blocks * 512 <= 4 * CHUNK
    content = (tmp_path / "disk").read_bytes()
    assert content == b"x" * CHUNK + bytes(98 * CHUNK) + b"y" * CHUNK


def test_what_an_existing_file_had_where_the_image_is_zero_is_gone(tmp_path: Path) -> None:
    image = manifest(10 * CHUNK + 5, (2, 3, 10))
    (tmp_path / "disk").write_bytes(b"old" * 400_000)
    target = Target(tmp_path / "disk")
    target.prepare(image)
    target.zero(image.zero, image)
    target.close()
    content = (tmp_path / "disk").read_bytes()
    assert len(content) == 10 * CHUNK + 5
    assert content[2 * CHUNK : 4 * CHUNK] == bytes(2 * CHUNK)
    assert content[10 * CHUNK :] == bytes(5)
    assert content[: 2 * CHUNK] == (b"old" * CHUNK)[: 2 * CHUNK]


class WithoutHoles(Medium):
    def punch_hole(self, descriptor: int, start: int, length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "no holes here")


def test_zeros_are_written_where_holes_cannot_be_made(tmp_path: Path) -> None:
    image = manifest(4 * CHUNK, (1, 2))
    (tmp_path / "disk").write_bytes(b"o" * 5 * CHUNK)
    target = Target(tmp_path / "disk", medium=WithoutHoles())
    target.prepare(image)
    target.zero(image.zero, image)
    target.close()
    assert (tmp_path / "disk").read_bytes() == b"o" * CHUNK + bytes(2 * CHUNK) + b"o" * CHUNK


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (".", "is a directory"),
        ("missing/disk", "does not exist: make it first"),
        ("pipe", "neither a file nor a block device"),
    ],
)
def test_what_cannot_be_a_target_is_refused(tmp_path: Path, name: str, sentence: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TargetRefusedError, match=sentence):
        Target(tmp_path / name)


def test_a_device_that_is_missing_is_never_created() -> None:
    with pytest.raises(TargetRefusedError, match="there is no device /dev/sdzz9"):
        Target(Path("/dev/sdzz9"))
    assert not Path("/dev/sdzz9").exists()


def test_an_image_beyond_the_free_space_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    target = Target(tmp_path / "disk")
    with pytest.raises(TargetRefusedError, match=r"bytes free, and the image needs"):
        target.prepare(manifest(1 << 38))
    target.close()
    assert not (tmp_path / "disk").exists()


def test_two_processes_cannot_receive_into_one_file(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"")
    first = Target(tmp_path / "disk")
    with pytest.raises(TargetRefusedError, match="another process receives into"):
        Target(tmp_path / "disk")
    first.close()
    Target(tmp_path / "disk").close()


def test_a_full_target_fails_with_what_to_do(tmp_path: Path) -> None:
    target = Target(tmp_path / "disk")
    target._descriptor = os.open("/dev/full", os.O_RDWR)
    with pytest.raises(TargetFailedError, match="is full: make room"):
        target.write(0, b"content")
    with pytest.raises(TargetFailedError, match="is full"):
        target.write(0, b"content")
    target.close()


class FiveBytesAtOnce(Medium):
    def write_at(self, descriptor: int, contents: Sequence[memoryview], offset: int) -> int:
        return os.pwrite(descriptor, b"".join(contents)[:5], offset)


def test_what_the_system_takes_in_parts_is_written_whole(tmp_path: Path) -> None:
    target = Target(tmp_path / "disk", medium=FiveBytesAtOnce())
    target.prepare(manifest(CHUNK))
    target.write(3, b"abcd", b"efg", b"hijkl", b"mnopqrstu")
    assert (tmp_path / "disk").read_bytes()[:24] == bytes(3) + b"abcdefghijklmnopqrstu"
    target.close()


class FlushedWhenLetGo(Medium):
    def __init__(self) -> None:
        super().__init__(flush_from_bytes=CHUNK, dirty_limit_bytes=2 * CHUNK)
        self.release = threading.Event()

    def flush(self, descriptor: int) -> None:
        self.release.wait()
        super().flush(descriptor)


def test_writers_wait_for_a_slow_medium_and_go_on(tmp_path: Path) -> None:
    medium = FlushedWhenLetGo()
    target = Target(tmp_path / "disk", medium=medium)
    target.prepare(manifest(10 * CHUNK))
    written: list[int] = []

    def write() -> None:
        for chunk in range(10):
            target.write(chunk * CHUNK, b"w" * CHUNK)
            written.append(chunk)

    writer = threading.Thread(target=write)
    writer.start()
    writer.join(0.2)
    assert writer.is_alive()
    assert len(written) < 5
    medium.release.set()
    writer.join(10)
    assert len(written) == 10
    target.close()


class NeverFlushed(Medium):
    def flush(self, descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")


def test_a_medium_that_fails_behind_the_writer_is_noticed(tmp_path: Path) -> None:
    target = Target(tmp_path / "disk", medium=NeverFlushed(flush_from_bytes=CHUNK))
    target.prepare(manifest(100 * CHUNK))

    def write_everything() -> None:
        for _ in range(1000):
            target.write(0, b"w" * CHUNK)
        target.flush()

    with pytest.raises(TargetFailedError, match="Input/output error"):
        write_everything()
    target.close()


def test_a_file_that_got_nothing_is_removed_only_if_it_is_ours(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"mine")
    for name in ("old", "new"):
        target = Target(tmp_path / name)
        target.prepare(manifest(CHUNK))
        target.discard()
        target.close()
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


@pytest.fixture
def loop_device(tmp_path: Path) -> str:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("loop devices need root")
    backing = tmp_path / "backing"
    backing.write_bytes(b"o" * 16 * CHUNK)
    made = subprocess.run(["losetup", "--find", "--show", backing], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr.strip()}")
    return made.stdout.strip()


def test_a_block_device_is_zeroed_written_and_taken_by_one_process(loop_device: str, tmp_path: Path) -> None:
    try:
        image = manifest(10 * CHUNK, (1, 2))
        target = Target(Path(loop_device))
        assert target.size_bytes == 16 * CHUNK
        with pytest.raises(TargetRefusedError, match="in use"):
            Target(Path(loop_device))
        with pytest.raises(TargetRefusedError, match="use a larger one"):
            target.prepare(manifest(17 * CHUNK))
        target.prepare(image)
        target.zero(image.zero, image)
        target.write(0, b"n" * CHUNK)
        target.flush()
        target.close()
        content = Path(loop_device).read_bytes()
        assert content == b"n" * CHUNK + bytes(2 * CHUNK) + b"o" * 13 * CHUNK
    finally:
        subprocess.run(["losetup", "--detach", loop_device], check=True)


def test_a_file_that_stands_for_a_larger_disk_keeps_its_size(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    with disk.open("wb") as file:
        file.truncate(10 << 20)
    image = manifest(16 * CHUNK)
    for keep_size, wanted in ((True, 10 << 20), (False, image.size_bytes)):
        target = Target(disk, keep_size=keep_size)
        target.prepare(image)
        target.close()
        assert disk.stat().st_size == wanted
