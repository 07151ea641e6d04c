"""`fleetcast-boot image`: builds boot images on this host, and says which one machines start."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fleetcast_boot.building.build import build
from fleetcast_boot.images import BootImage, BootImages
from fleetcast_boot.settings import BootSettings

image_app = typer.Typer(no_args_is_help=True, help="What machines start that start from the network.")

_DataDir = Annotated[Path | None, typer.Option(metavar="DIR", help="Where boot images are kept.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Beginning = Annotated[str, typer.Argument(metavar="DIGEST", help="The digest, or how it begins.")]


@image_app.command("build")
def build_image(
    *,
    data_dir: _DataDir = None,
    mirror: Annotated[str, typer.Option(metavar="URL", help="Debian's mirror; by default Debian's own choice.")] = "",
    activate: Annotated[bool, typer.Option(help="Let machines start it at once.")] = True,
    as_json: _Json = False,
) -> None:
    """Build a boot image from Debian's packages and the agent that is installed here. As root; some minutes."""
    directory = _directory(data_dir)
    images = BootImages(directory)
    image = build(images, directory, _say, mirror)
    if activate:
        images.activate(image)
    _show(image, images, as_json=as_json)


@image_app.command("list")
def list_images(*, data_dir: _DataDir = None, as_json: _Json = False) -> None:
    """List the boot images, the newest first."""
    images = BootImages(_directory(data_dir))
    active = images.active()
    found = images.all()
    if as_json:
        print(json.dumps([_values(image, active) for image in found]))
        return
    if not found:
        print("no boot images: make one with `fleetcast-boot image build`")
    for image in found:
        mark = "active" if active and image.digest == active.digest else ""
        made_from = f"agent {image.agent_version}  Linux {image.kernel_version}"
        size = f"{image.size_bytes / 1e6:.0f} MB"
        print(f"{image.digest[:12]}  {image.created_at[:16]}  {made_from}  {size}  {mark}".rstrip())


@image_app.command("show")
def show_image(digest: _Beginning, *, data_dir: _DataDir = None, as_json: _Json = False) -> None:
    """Show one boot image: what it was made from, and its files."""
    images = BootImages(_directory(data_dir))
    _show(images.find(digest), images, as_json=as_json)


@image_app.command("activate")
def activate_image(digest: _Beginning, *, data_dir: _DataDir = None) -> None:
    """Let machines start this boot image from now on."""
    images = BootImages(_directory(data_dir))
    image = images.find(digest)
    images.activate(image)
    print(f"machines start {image.digest[:12]} from now on")


def _directory(data_dir: Path | None) -> Path:
    return BootSettings.load(data_dir=data_dir).data_dir


def _values(image: BootImage, active: BootImage | None) -> dict[str, object]:
    return asdict(image) | {"active": active is not None and image.digest == active.digest}


def _show(image: BootImage, images: BootImages, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_values(image, images.active())))
        return
    print(f"digest   {image.digest}")
    print(f"created  {image.created_at}")
    print(f"agent    {image.agent_version}")
    print(f"kernel   {image.kernel_version} ({image.architecture})")
    for name, size in image.sizes_bytes.items():
        print(f"  {size / 1e6:8.1f} MB  {name}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
