"""Which image belongs where, and which disk can take it."""

import pytest
from fleetcast_scheduler.images import DiskDemand, DiskSize, ImageKind, Medium, PinnedImage, unfit_disks, unfit_for

WIM = PinnedImage("images/win11@sha256:0", 5, is_wim=True)
GB = 10**9


def image(kind: ImageKind, sector_size_bytes: int = 0) -> PinnedImage:
    return PinnedImage("images/a@sha256:0", 5, False, kind, sector_size_bytes, "ext4")


@pytest.mark.parametrize(
    ("found", "medium", "problem"),
    [
        (WIM, Medium.DISK, "is a WIM or ESD file"),
        (WIM, Medium.VOLUME, "is a WIM or ESD file"),
        (WIM, Medium.ANY, ""),
        (image(ImageKind.VOLUME), Medium.DISK, "has no partition table: it is one ext4 volume"),
        (image(ImageKind.VOLUME), Medium.VOLUME, ""),
        (image(ImageKind.FILE), Medium.DISK, "has neither a partition table nor a file system"),
        (image(ImageKind.FILE), Medium.ANY, ""),
        (image(ImageKind.DISK), Medium.DISK, ""),
        (image(ImageKind.DISK, 4096), Medium.DISK, "sectors of 4096 bytes, and this one has sectors of 512"),
        (image(ImageKind.DISK, 512), Medium.DISK, ""),
        (image(ImageKind.UNKNOWN), Medium.DISK, ""),
    ],
)
def test_an_image_is_compared_with_where_it_is_written(found: PinnedImage, medium: Medium, problem: str) -> None:
    said = unfit_for(found, medium, 512)
    assert problem in said
    assert bool(said) == bool(problem)


@pytest.mark.parametrize(
    ("disks", "problem"),
    [
        ([], ""),
        ([DiskSize(0)], ""),
        ([DiskSize(128 * GB, 512)], ""),
        ([DiskSize(119_024_000_000, 512)], "disk too small: 119 GB, needs 128 GB"),
        ([DiskSize(32 * GB), DiskSize(119_024_000_000)], "disk too small: 119 GB, needs 128 GB"),
        ([DiskSize(32 * GB), DiskSize(500 * GB)], ""),
        ([DiskSize(500 * GB, 4096)], "disk with sectors of 4096 bytes: the image was made for sectors of 512"),
        ([DiskSize(500 * GB, 4096), DiskSize(500 * GB, 512)], ""),
        ([DiskSize(500 * GB, 4096), DiskSize(32 * GB, 512)], "disk with sectors of 4096 bytes"),
    ],
)
def test_a_machine_is_told_apart_whose_disks_cannot_take_it(disks: list[DiskSize], problem: str) -> None:
    said = unfit_disks([DiskDemand(128 * GB, 512)], disks)
    assert said.startswith(problem)
    assert bool(said) == bool(problem)
