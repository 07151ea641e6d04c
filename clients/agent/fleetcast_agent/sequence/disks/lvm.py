"""Volume groups on one partition, worked on by LVM's tools without ever being activated.

The tools see the one device and no other, so that a group whose name is also in use on the running system is no matter,
and change nothing but what the group's own records say. What a logical volume holds is reached where these records say
it is, by the same loops as everything else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.tools import Tools

MEMBER = "LVM2_member"
"""How blkid calls a physical volume."""
_SIMPLE = ("linear", "striped")
"""Kinds of segments whose content is on the disk as it is; one stripe is the same as linear."""
_FIELDS = (
    "vg_name,vg_extent_size,vg_extent_count,vg_free_count,pv_count,pe_start,lv_name,lv_uuid,lv_attr,"
    "segtype,stripes,seg_start_pe,seg_pe_ranges"
)
_RANGE = re.compile(r":(\d+)-(\d+)$")


@dataclass(frozen=True)
class LogicalVolume:
    """A logical volume."""

    name: str
    identifier: str
    """Its UUID as LVM writes it."""
    extents: tuple[tuple[int, int], ...]
    """First and last extent of each part; none if its content is not on the disk as it is (thin, mirrored, cached)."""
    pieces: tuple[tuple[int, int], ...]
    """The same as begin and size in bytes on the physical volume."""

    @property
    def size_bytes(self) -> int:
        """Its size."""
        return sum(size for _, size in self.pieces)


@dataclass(frozen=True)
class Group:
    """A volume group."""

    name: str
    extent_bytes: int
    extent_count: int
    taken_extents: int
    disk_count: int
    """Of how many physical volumes it consists."""
    volumes: tuple[LogicalVolume, ...]

    @property
    def free_extents(self) -> int:
        """How many extents no volume has taken."""
        return self.extent_count - self.taken_extents

    def free_after(self, extent: int) -> int:
        """Returns how many extents are free from this one on, without a gap."""
        taken = [first for volume in self.volumes for first, _ in volume.extents if first >= extent]
        return min([*taken, self.extent_count]) - extent


async def read(tools: Tools, device: Path) -> Group:
    """Returns the group whose physical volume is `device`.

    Raises:
        StepError: there is none, or the tools for it are not there.
    """
    # Asked for by segment, an empty group has no row.
    rows = await _report(tools, device, "pvs", "--segments", "-o", _FIELDS, device)
    if not rows or not rows[0]["vg_name"]:
        raise StepError(f"{device} is a physical volume of LVM without a volume group")
    first = rows[0]
    extent_bytes, begin = int(first["vg_extent_size"]), int(first["pe_start"])
    volumes: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["lv_name"]:
            volumes.setdefault(row["lv_uuid"], []).append(row)
    return Group(
        name=first["vg_name"],
        extent_bytes=extent_bytes,
        extent_count=int(first["vg_extent_count"]),
        taken_extents=int(first["vg_extent_count"]) - int(first["vg_free_count"]),
        disk_count=int(first["pv_count"]),
        volumes=tuple(_volume(parts, extent_bytes, begin) for parts in volumes.values()),
    )


async def grow_group(tools: Tools, device: Path) -> None:
    """Lets the physical volume fill its device."""
    await _run(tools, device, "pvresize", device)


async def extend(tools: Tools, device: Path, group: Group, volume: LogicalVolume) -> None:
    """Gives a logical volume all extents that are free."""
    await _run(tools, device, "lvextend", "--extents", "+100%FREE", f"{group.name}/{volume.name}")


async def place_anew(tools: Tools, device: Path, group: Group, volume: LogicalVolume, first_extent: int) -> None:
    """Makes a logical volume anew, of the same name and size, at another place. What it held is lost.

    The group and its volumes stay inactive.
    """
    count = sum(last - first + 1 for first, last in volume.extents)
    await _run(tools, device, "lvremove", "--yes", f"{group.name}/{volume.name}")
    options = ["--activate", "n", "--zero", "n", "--wipesignatures", "n", "--name", volume.name]
    place = f"{device}:{first_extent}-{first_extent + count - 1}"
    await _run(tools, device, "lvcreate", *options, "--extents", str(count), group.name, place)


def _volume(rows: Sequence[dict[str, Any]], extent_bytes: int, begin: int) -> LogicalVolume:
    extents: tuple[tuple[int, int], ...] = ()
    # Attributes begin with a letter where it is a snapshot, or what others are made of.
    plain = all(row["segtype"] in _SIMPLE and row["stripes"] == "1" and row["lv_attr"][0] == "-" for row in rows)
    if plain:
        ordered = sorted(rows, key=lambda row: int(row["seg_start_pe"]))
        found = [_RANGE.search(row["seg_pe_ranges"]) for row in ordered]
        extents = tuple((int(match[1]), int(match[2])) for match in found if match)
    pieces = tuple((begin + first * extent_bytes, (last - first + 1) * extent_bytes) for first, last in extents)
    return LogicalVolume(rows[0]["lv_name"], rows[0]["lv_uuid"], extents, pieces)


async def _report(tools: Tools, device: Path, *words: str | Path) -> list[dict[str, Any]]:
    options = ["--reportformat", "json", "--units", "b", "--nosuffix"]
    finished = await _run(tools, device, *words, *options)
    report = json.loads(finished)["report"][0]
    return list(next(iter(report.values())))


async def _run(tools: Tools, device: Path, program: str | Path, *words: str | Path) -> str:
    only = f'["a|^{re.escape(str(device))}$|", "r|.*|"]'
    configuration = (
        f'devices {{ filter={only} global_filter={only} use_devicesfile=0 hints="none" }} '
        "backup { backup=0 archive=0 } activation { udev_sync=0 udev_rules=0 }"
    )
    # Nothing is activated; the warning that says so for each command would fill the log.
    options: list[str | Path] = ["--config", configuration, "--driverloaded", "n", "--nolocking", "--quiet"]
    environment = {"LVM_SUPPRESS_FD_WARNINGS": "1"}
    return (await tools.run([program, *options, *words], environment=environment, quiet=True)).output
