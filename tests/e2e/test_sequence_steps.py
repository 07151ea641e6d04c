"""Each step with the real tools on a disk file."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from fleetcast_agent.sequence.disks import carrying, files, filesystems, volumes
from fleetcast_agent.sequence.disks import partition_tables as tables
from fleetcast_agent.sequence.engine.records import Outcome
from fleetcast_agent.sequence.errors import StepError

from tests.support.sequences import MIB, Rehearsal, make_tree, make_wim, needs_disks, tool

pytestmark = needs_disks

FIXED = "mac: '52:54:00:12:34:56', dhcp: false, addresses: [192.0.2.5/24], gateway: 192.0.2.1"
SMALL = (
    "partition-disk: {partitions: [{name: data, type: windows, size: 60MiB, filesystem: ntfs, label: Data}, "
    "{name: root, type: linux-root, filesystem: ext4, label: root}]}"
)


@pytest.fixture
def machine(tmp_path: Path) -> Rehearsal:
    return Rehearsal(tmp_path, 160 * MIB)


async def kinds(machine: Rehearsal) -> dict[str, str]:
    context = machine.context()
    return {name: await files.kind_of(context, await volumes.find(context, name)) for name in context.volumes}


@pytest.mark.parametrize(
    ("layout", "size_mib", "wanted"),
    [
        ("uefi-windows", 2200, {"efi": "vfat", "msr": "", "windows": "ntfs", "recovery": "ntfs"}),
        ("uefi-linux", 700, {"efi": "vfat", "root": "ext4"}),
        ("bios", 100, {"root": "ext4"}),
        ("bios-windows", 700, {"system": "ntfs", "windows": "ntfs"}),
    ],
)
async def test_layouts(tmp_path: Path, layout: str, size_mib: int, wanted: dict[str, str]) -> None:
    machine = Rehearsal(tmp_path, size_mib * MIB)
    outcome = await machine.steps(f"partition-disk: {{layout: {layout}}}")
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    assert await kinds(machine) == wanted
    table = json.loads(tool("sfdisk", "--json", machine.disk))["partitiontable"]
    assert table["label"] == ("dos" if layout.startswith("bios") else "gpt")
    assert all(entry["start"] % 2048 == 0 and entry["size"] % 2048 == 0 for entry in table["partitions"])
    if layout == "uefi-windows":
        assert table["partitions"][3]["attrs"] == "RequiredPartition GUID:63"
        assert "No problems found" in tool("sgdisk", "--verify", machine.disk)


async def test_partitioning_again_replaces_everything(machine: Rehearsal) -> None:
    assert (await machine.steps(SMALL)).outcome is Outcome.SUCCEEDED
    assert (await machine.steps("partition-disk: {layout: bios}")).outcome is Outcome.SUCCEEDED
    assert await kinds(machine) == {"root": "ext4"}
    assert tool("wipefs", "--no-act", "--noheadings", "--output", "TYPE", machine.disk).split() == ["dos"]


async def test_partitions_that_do_not_fit_are_refused_before_anything_is_written(machine: Rehearsal) -> None:
    outcome = await machine.steps("partition-disk: {layout: uefi-windows}")
    assert "do not fit on a disk of 160 MiB" in outcome.message
    assert machine.disk.read_bytes().count(0) == machine.disk.stat().st_size


async def test_a_disk_in_use_is_refused(machine: Rehearsal) -> None:
    assert (await machine.steps("partition-disk: {layout: bios}")).outcome is Outcome.SUCCEEDED
    context = machine.context()
    async with volumes.mounted(context, await volumes.find(context, "root")):
        outcome = await machine.steps("partition-disk: {layout: bios}")
    assert "is in use (mounted at" in outcome.message


async def test_a_protected_disk_is_refused(machine: Rehearsal) -> None:
    outcome = await machine.steps(f"partition-disk: {{layout: bios, protect: ['{machine.disk}']}}")
    assert "is protected" in outcome.message


@pytest.mark.parametrize("filesystem", ["ntfs", "fat32", "ext4", "xfs"])
async def test_formatting(tmp_path: Path, filesystem: str) -> None:
    machine = Rehearsal(tmp_path, 400 * MIB)
    outcome = await machine.steps(
        "partition-disk: {partitions: [{name: data}]}",
        f"format-volume: {{volume: data, filesystem: {filesystem}, label: DATA}}",
    )
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    context = machine.context()
    volume = await volumes.find(context, "label:DATA")
    assert await files.kind_of(context, volume) == filesystem.replace("fat32", "vfat")


async def test_formatting_with_a_label_that_is_too_long_says_so(machine: Rehearsal) -> None:
    outcome = await machine.steps(SMALL, "format-volume: {volume: root, filesystem: xfs, label: thirteen-char}")
    assert "longer than the 12 bytes" in outcome.message


async def test_emptying_a_volume_keeps_what_is_named(machine: Rehearsal) -> None:
    outcome = await machine.steps(
        SMALL,
        "copy-files: {volume: data, destination: Keep/a.txt, content: a}",
        "copy-files: {volume: data, destination: Other/b.txt, content: b}",
        "format-volume: {volume: data, keep: [keep]}",
    )
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    context = machine.context()
    async with volumes.mounted(context, await volumes.find(context, "data"), read_only=True) as root:
        assert sorted(os.listdir(root)) == ["Keep"]


async def test_a_wim_on_ntfs_is_equal_to_its_tree(machine: Rehearsal, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    make_wim(tree, machine.content / "win")
    outcome = await machine.steps(SMALL, "apply-operating-system: {image: win, index: 2, volume: data}")
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    context = machine.context()
    volume = await volumes.find(context, "data")
    async with volumes.attached(context, volume) as device:
        tool("ntfsfix", "--no-action", device)
    async with volumes.mounted(context, volume, read_only=True) as root:
        assert tool("diff", "--recursive", "--brief", "--no-dereference", tree, root) == ""
        assert (root / "Users/Anna/hard link.bin").stat().st_nlink == 2
    assert not list(machine.state.glob("steps/*"))


async def test_a_wim_on_ext4_keeps_owners_and_modes(machine: Rehearsal, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    (tree / "Windows/kernel.exe").chmod(0o4751)
    os.chown(tree / "Users", 1234, 5678)
    tool("wimlib-imagex", "capture", tree, machine.content / "lin", "L", "--unix-data")
    outcome = await machine.steps(SMALL, "apply-operating-system: {image: lin, volume: root, spool: data}")
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    context = machine.context()
    async with volumes.mounted(context, await volumes.find(context, "root"), read_only=True) as root:
        assert (root / "Windows/kernel.exe").stat().st_mode & 0o7777 == 0o4751
        assert (root / "Users").stat().st_gid == 5678
    async with volumes.mounted(context, await volumes.find(context, "data"), read_only=True) as root:
        assert os.listdir(root) == []


async def test_an_index_that_is_not_in_the_wim_fails_before_the_volume_is_erased(
    machine: Rehearsal, tmp_path: Path
) -> None:
    make_wim(make_tree(tmp_path / "tree"), machine.content / "win")
    outcome = await machine.steps(
        SMALL,
        "copy-files: {volume: data, destination: here.txt, content: still}",
        "apply-operating-system: {image: win, index: 3, volume: data}",
    )
    assert outcome.outcome is Outcome.FAILED
    assert "wimlib-imagex ended with exit code" in outcome.message
    assert await read(machine, "data", "here.txt") == b"still"


async def read(machine: Rehearsal, volume: str, path: str) -> bytes | None:
    context = machine.context()
    async with files.opened(context, await volumes.find(context, volume)) as tree:
        return await tree.read(path)


async def make_disk_image(tmp_path: Path, table: str) -> Path:
    """Returns a raw disk image with one ext4 partition that holds a minimal Linux tree."""
    source = Rehearsal(tmp_path / "source", 64 * MIB)
    outcome = await source.steps(
        f"partition-disk: {{table: {table}, partitions: [{{name: root, type: linux, filesystem: ext4}}]}}",
        *(
            f"copy-files: {{volume: root, destination: {path}, content: '{text}'}}"
            for path, text in (
                ("etc/hostname", "image"),
                ("etc/machine-id", "1" * 32),
                ("var/lib/fleetcast-agent/key.pem", "a key"),
                ("var/lib/fleetcast-agent/runs/d-r-1/journal", "a run"),
                ("proc/x", ""),
                ("sys/x", ""),
                ("dev/x", ""),
                ("usr/share/zoneinfo/Europe/Berlin", "TZif"),
            )
        ),
    )
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    return source.disk


@pytest.mark.parametrize("table", ["gpt", "mbr"])
@pytest.mark.parametrize("size_mib", [64, 100, 300])
async def test_a_raw_disk_image_grows_to_the_disk(tmp_path: Path, table: str, size_mib: int) -> None:
    machine = Rehearsal(tmp_path, size_mib * MIB)
    (machine.content / "linux").write_bytes((await make_disk_image(tmp_path, table)).read_bytes())
    outcome = await machine.steps("apply-operating-system: {image: linux, disk: system, root: root}")
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    context = machine.context()
    volume = await volumes.find(context, "root")
    assert volume.start_bytes + volume.size_bytes >= (size_mib - 2) * MIB
    async with volumes.attached(context, volume) as device:
        tool("e2fsck", "-fn", device)
    async with volumes.mounted(context, volume, read_only=True) as root:
        status = os.statvfs(root)
        assert status.f_blocks * status.f_frsize > volume.size_bytes * 0.8
    if table == "gpt":
        assert "No problems found" in tool("sgdisk", "--verify", machine.disk)


async def test_a_raw_image_larger_than_the_disk_is_refused(tmp_path: Path) -> None:
    machine = Rehearsal(tmp_path, 10 * MIB)
    (machine.content / "big").write_bytes(bytes(11 * MIB))
    outcome = await machine.steps("apply-operating-system: {image: big, disk: system}")
    assert "does not fit" in outcome.message


@pytest.mark.parametrize("filesystem", ["ntfs", "ext4"])
async def test_a_raw_volume_image_grows_to_the_volume(tmp_path: Path, filesystem: str) -> None:
    machine = Rehearsal(tmp_path, 160 * MIB)
    image = machine.content / "data"
    with image.open("wb") as file:
        file.truncate(40 * MIB)
    tool(f"mkfs.{filesystem}", "-q", "-F", image)
    outcome = await machine.steps(SMALL, "apply-data-image: {image: data, volume: root}")
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    context = machine.context()
    volume = await volumes.find(context, "root")
    async with volumes.mounted(context, volume, read_only=True) as root:
        status = os.statvfs(root)
        assert status.f_blocks * status.f_frsize > volume.size_bytes * 0.8


async def test_every_machine_gets_its_own_linux_identity(tmp_path: Path) -> None:
    image = (await make_disk_image(tmp_path, "gpt")).read_bytes()
    found = set()
    for name in ("pc1", "pc2"):
        machine = Rehearsal(tmp_path / name, 100 * MIB)
        (machine.content / "linux").write_bytes(image)
        outcome = await machine.steps(
            "apply-operating-system: {image: linux, disk: system, root: root}",
            f"apply-linux-settings: {{volume: root, host_name: {name}.example.org, time_zone: Europe/Berlin}}",
            f"apply-network-settings: {{volume: root, adapters: [{{{FIXED}, dns: [192.0.2.53]}}]}}",
        )
        assert outcome.outcome is Outcome.SUCCEEDED, outcome
        assert await read(machine, "root", "etc/hostname") == name.encode() + b"\n"
        assert b"127.0.1.1\t" + f"{name}.example.org {name}".encode() in (
            await read(machine, "root", "etc/hosts") or b""
        )
        network = await read(machine, "root", "etc/systemd/network/10-fleetcast-0.network") or b""
        assert b"MACAddress=52:54:00:12:34:56" in network
        assert b"Address=192.0.2.5/24" in network
        found.add(await read(machine, "root", "etc/machine-id"))
        context = machine.context()
        async with volumes.mounted(context, await volumes.find(context, "root"), read_only=True) as root:
            assert os.readlink(root / "etc/localtime") == "/usr/share/zoneinfo/Europe/Berlin"
            assert list((root / "var/lib/fleetcast-agent").iterdir()) == []
    assert len(found) == 2
    assert b"1" * 32 + b"\n" not in found


async def test_windows_gets_its_answer_file(machine: Rehearsal, tmp_path: Path) -> None:
    make_wim(make_tree(tmp_path / "tree"), machine.content / "win")
    drivers = tmp_path / "drivers.tar"
    (tmp_path / "net.inf").write_text("[Version]\n")
    with tarfile.open(drivers, "w") as tar:
        tar.add(tmp_path / "net.inf", "network/net.inf")
    drivers.rename(machine.content / "drivers")
    source = f"""
name: windows
variables: {{secret_word: {{secret: true, required: true}}}}
steps:
  - {{name: Partition, type: {SMALL.replace(": ", ", with: ", 1)}}}
  - {{name: Apply, type: apply-operating-system, with: {{image: win, volume: data}}}}
  - name: Settings
    type: apply-windows-settings
    with: {{volume: data, computer_name: PC-7, locale: de-DE, time_zone: W. Europe Standard Time, organization: A & B,
           administrator_password: "{{{{ secret_word }}}}", workgroup: LAB}}
  - name: Network
    type: apply-network-settings
    with: {{volume: data, adapters: [{{{FIXED}}}]}}
  - name: Drivers
    type: apply-driver-package
    with: {{volume: data, packages: [{{package: none, when: "machine.name == 'other'"}}, {{package: drivers}}]}}
"""
    outcome = await machine.run(source, secret_word="Gehe!m")
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    answers = (await read(machine, "data", "windows/panther/UNATTEND.XML") or b"").decode()
    for text in (
        "<ComputerName>PC-7</ComputerName>",
        "A &amp; B",
        "<JoinWorkgroup>LAB<",
        "52-54-00-12-34-56",
        "pnputil",
        'pass="oobeSystem"',
    ):
        assert text in answers
    assert "Gehe!m" not in answers + machine.log
    assert await read(machine, "data", "Drivers/network/net.inf") == b"[Version]\n"


async def test_windows_settings_need_a_windows(machine: Rehearsal) -> None:
    outcome = await machine.steps(SMALL, "apply-windows-settings: {volume: data, computer_name: A}")
    assert "holds no Windows" in outcome.message


async def test_files_and_templates_go_into_every_file_system(tmp_path: Path) -> None:
    machine = Rehearsal(tmp_path, 160 * MIB)
    source = tmp_path / "package"
    (source / "sub").mkdir(parents=True)
    (source / "sub/a.conf").write_text("name={{ machine.name }}")
    outcome = await machine.steps(
        "partition-disk: {partitions: [{name: fat, type: esp, size: 40MiB, filesystem: fat32}, "
        "{name: nt, type: windows, size: 40MiB, filesystem: ntfs}, {name: ext, filesystem: ext4}]}",
        *(
            f"copy-files: {{volume: {name}, destination: /EFI/{what}}}"
            for name in ("fat", "nt", "ext")
            for what in (f"x, source: {source}, template: true", "x/b, content: 'b {{ machine.name }}', mode: '0600'")
        ),
    )
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    for name in ("fat", "nt", "ext"):
        assert await read(machine, name, "EFI/x/sub/a.conf") == b"name=pc1"
        assert await read(machine, name, "EFI/x/b") == b"b pc1"


async def test_a_link_in_the_new_system_cannot_lead_out_of_it(machine: Rehearsal, tmp_path: Path) -> None:
    assert (await machine.steps(SMALL)).outcome is Outcome.SUCCEEDED
    context = machine.context()
    outside = tmp_path / "outside"
    outside.mkdir()
    volume = await volumes.find(context, "root")
    async with volumes.mounted(context, volume) as root:
        (root / "etc").symlink_to(outside)
        (root / "up").symlink_to("../../../..")
    async with files.opened(context, volume) as tree:
        await tree.write("etc/hostname", b"x")
        with pytest.raises(StepError, match="leaves the volume"):
            await tree.write("up/x", b"x")
    assert not list(outside.iterdir())
    async with volumes.mounted(context, volume) as root:
        assert (root / str(outside).lstrip("/") / "hostname").read_bytes() == b"x"


async def test_packages_are_unpacked_and_scripts_in_them_run(machine: Rehearsal, tmp_path: Path) -> None:
    (tmp_path / "hello.sh").write_text("echo hello from $1")
    with tarfile.open(machine.content / "tools", "w:gz") as tar:
        tar.add(tmp_path / "hello.sh", "bin/hello.sh")
    outcome = await machine.steps(
        "download-package: {package: tools, path_variable: tools}",
        "run-script: {file: '{{ tools }}/bin/hello.sh', arguments: [package]}",
    )
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    assert "hello from package" in machine.log


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
async def test_a_package_that_leaves_its_directory_is_refused(machine: Rehearsal, kind: bytes) -> None:
    member = tarfile.TarInfo("../../outside" if kind == tarfile.REGTYPE else "inside")
    member.type, member.linkname = kind, "../../outside"
    with tarfile.open(machine.content / "bad", "w") as tar:
        tar.addfile(member)
    outcome = await machine.steps("download-package: {package: bad, path_variable: p}")
    assert "cannot be unpacked" in outcome.message
    assert not list(machine.directory.rglob("*side"))


async def test_commands_run_inside_the_new_system(machine: Rehearsal, tmp_path: Path) -> None:
    busybox = shutil.which("busybox")
    if busybox is None or "not a dynamic executable" not in tool("sh", "-c", f"ldd {busybox} 2>&1 || true"):
        pytest.skip("no static busybox to put into the new system: install busybox-static")
    for name in ("proc", "sys", "dev"):
        (tmp_path / "tree" / name).mkdir(parents=True)
    (tmp_path / "tree/bin").mkdir()
    shutil.copy(busybox, tmp_path / "tree/bin/sh")
    tool("wimlib-imagex", "capture", tmp_path / "tree", machine.content / "lin", "L", "--unix-data")
    outcome = await machine.steps(
        SMALL,
        "apply-operating-system: {image: lin, volume: root}",
        "run-script: {inside: root, script: 'echo inside > /made; test -e /proc/self'}",
    )
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    assert await read(machine, "root", "made") == b"inside\n"


async def test_readiness_names_everything_that_is_missing(machine: Rehearsal) -> None:
    outcome = await machine.steps("check-readiness: {min_memory: 4TiB, min_disk: 1TiB, reachable: ['127.0.0.1:1']}")
    for text in ("memory of 4 TiB", "a disk of 1 TiB: it has 160 MiB", "a connection to 127.0.0.1:1"):
        assert text in outcome.message
    assert (await machine.steps("check-readiness: {min_memory: 64MiB, min_disk: 100MiB}")).outcome is Outcome.SUCCEEDED


async def test_a_captured_wim_deploys_to_an_equal_tree(machine: Rehearsal, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    make_wim(tree, machine.content / "win")
    one, two = (f"{{name: {name}, type: windows, size: 60MiB, filesystem: ntfs}}" for name in ("one", "two"))
    outcome = await machine.steps(
        f"partition-disk: {{partitions: [{one}, {two}]}}",
        "apply-operating-system: {image: win, index: 2, volume: one}",
        "copy-files: {volume: one, destination: pagefile.sys, content: x}",
        "copy-files: {volume: one, destination: ProgramData/fleetcast-agent/key.pem, content: x}",
        "capture-image: {image: mine, volume: one, exclude: [/pagefile.sys]}",
        "apply-operating-system: {image: mine, volume: two}",
    )
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    context = machine.context()
    async with volumes.mounted(context, await volumes.find(context, "two"), read_only=True) as root:
        assert list((root / "ProgramData/fleetcast-agent").iterdir()) == []
        assert tool("diff", "--recursive", "--brief", "--no-dereference", "--exclude=ProgramData", tree, root) == ""


@pytest.mark.parametrize("where", ["volume: root", "disk: system"])
async def test_a_raw_capture_holds_used_blocks_only_and_deploys_equal(tmp_path: Path, where: str) -> None:
    machine = Rehearsal(tmp_path, 160 * MIB)
    outcome = await machine.steps(
        SMALL,
        "copy-files: {volume: root, destination: a, content: kept}",
        "copy-files: {volume: data, destination: a, content: kept too}",
        f"capture-image: {{image: mine, {where}, format: raw}}",
    )
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    first = machine.context()
    other = Rehearsal(tmp_path / "other", 160 * MIB)
    (other.content / "mine").write_bytes((machine.content / "mine").read_bytes())
    if where.startswith("disk"):
        outcome = await other.steps("apply-operating-system: {image: mine, disk: system, grow: false}")
        assert await tables.read(first.tools, first.disks.find("system")) == await tables.read(
            first.tools, other.context().disks.find("system")
        )
        other.runs -= 1
        other.state.mkdir(exist_ok=True)
        (other.state / "journal").write_bytes((machine.state / "journal").read_bytes())
    else:
        outcome = await other.steps(SMALL, "apply-data-image: {image: mine, volume: root}")
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    assert await read(other, "root", "a") == b"kept"


@pytest.mark.parametrize(("layout", "platform"), [("uefi-linux", "x86_64-efi"), ("bios", "i386-pc")])
async def test_a_linux_system_is_made_bootable(tmp_path: Path, layout: str, platform: str) -> None:
    if platform not in os.listdir("/usr/lib/grub"):
        pytest.skip(f"GRUB for {platform} is not installed")
    machine = Rehearsal(tmp_path, 700 * MIB)
    efi = ", efi_volume: efi" if layout == "uefi-linux" else ""
    outcome = await machine.steps(
        f"partition-disk: {{layout: {layout}}}",
        "copy-files: {volume: root, destination: etc/fstab, content: 'tmpfs /tmp tmpfs'}",
        "copy-files: {volume: root, destination: boot/vmlinuz-6.1, content: kernel}",
        "copy-files: {volume: root, destination: boot/initrd.img-6.1, content: initrd}",
        f"configure-boot: {{volume: root{efi}, kernel_arguments: console=ttyS0}}",
    )
    assert outcome.outcome is Outcome.SUCCEEDED, outcome
    context = machine.context()
    volume = await volumes.find(context, "root")
    uuid = (await filesystems.probe(context.tools, volume.backing, offset_bytes=volume.start_bytes))["UUID"]
    fstab = await read(machine, "root", "etc/fstab") or b""
    assert fstab.startswith(b"tmpfs /tmp tmpfs\n")
    assert f"UUID={uuid} / ext4".encode() in fstab
    menu = await read(machine, "root", "boot/grub/grub.cfg") or b""
    assert f"linux /boot/vmlinuz-6.1 root=UUID={uuid} ro console=ttyS0".encode() in menu
    if efi:
        assert (await read(machine, "efi", "EFI/BOOT/BOOTX64.EFI") or b"").startswith(b"MZ")
    else:
        first = machine.disk.read_bytes()[:512]
        assert b"GRUB" in first
        assert first.endswith(b"\x55\xaa")
        assert len(await tables.read(context.tools, context.disks.find("system"))) == 1


async def test_windows_boot_files_need_windows_pe(machine: Rehearsal) -> None:
    outcome = await machine.steps("configure-boot: {volume: data, system: windows}")
    assert "only Windows PE" in outcome.message


async def test_a_restart_takes_the_journal_along(machine: Rehearsal) -> None:
    outcome = await machine.steps(SMALL, "restart: {target: installed, carry_state_to: root}")
    assert outcome.restart == "installed"
    carried = await read(machine, "root", "var/lib/fleetcast-agent/task-sequence/journal")
    assert carried == (machine.state / "journal").read_bytes()


async def test_a_restart_takes_the_machines_identity_along(machine: Rehearsal, tmp_path: Path) -> None:
    assert (await machine.steps(SMALL)).outcome is Outcome.SUCCEEDED
    identity = tmp_path / "identity"
    identity.mkdir()
    for name in ("ca.pem", "cert.pem", "key.pem", "server.json"):
        (identity / name).write_text(name)
    for volume, directory in (("root", "var/lib/fleetcast-agent"), ("data", "ProgramData/fleetcast-agent")):
        await carrying.carry(machine.context(), volume, identity)
        for name in ("ca.pem", "cert.pem", "key.pem", "server.json"):
            assert await read(machine, volume, f"{directory}/{name}") == name.encode()
