"""Steps that make an applied image this machine's own system."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from fleetcast_sequence.model import Condition, SequenceModel
from fleetcast_sequence.steps.content import Delivery, ImageName

_VOLUME = "The volume with the new system."
Mac = Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}$")]


class DomainJoin(SequenceModel):
    """An Active Directory domain to join."""

    name: str = Field(description="DNS name of the domain.")
    account: str = Field(description="Account that may join machines.")
    password: str = Field(description="Its password: a template of a secret variable.")
    organizational_unit: str = Field(default="", description="Distinguished name of the unit for the machine.")


class ApplyWindowsSettings(SequenceModel):
    """Writes `Windows/Panther/unattend.xml`, from these fields or by merging them into a given file."""

    volume: str = Field(description=_VOLUME)
    answer_file: str | None = Field(
        default=None, description="An unattend.xml on the running system to merge the fields into."
    )
    computer_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]*[A-Za-z-][A-Za-z0-9-]*$", max_length=15)] | None = (
        Field(default=None, description="At most 15 letters, digits and hyphens, not only digits.")
    )
    organization: str = Field(default="", description="Registered organisation.")
    owner: str = Field(default="", description="Registered owner.")
    locale: str = Field(default="", description="Language and formats, such as `de-DE`.")
    keyboard: str = Field(
        default="", description="Keyboard, such as `de-DE` or `0407:00000407`; the locale's by default."
    )
    time_zone: str = Field(default="", description="Windows name of the time zone, such as `W. Europe Standard Time`.")
    product_key: Annotated[str, Field(pattern=r"^([A-Za-z0-9]{5}-){4}[A-Za-z0-9]{5}$")] | None = Field(
        default=None, description="Five groups of five."
    )
    administrator_password: str | None = Field(
        default=None, description="Password of the local administrator: a template of a secret variable."
    )
    domain: DomainJoin | None = Field(default=None, description="Domain to join.")
    workgroup: str | None = Field(default=None, description="Workgroup to join, in place of a domain.")
    architecture: Literal["amd64", "arm64", "x86"] = Field(default="amd64", description="Of the Windows in the image.")

    @model_validator(mode="after")
    def _domain_or_workgroup(self) -> ApplyWindowsSettings:
        if self.domain and self.workgroup:
            raise ValueError("give either `domain` or `workgroup`")
        return self


class ApplyLinuxSettings(SequenceModel):
    """Gives a Linux system its own host name, machine id and host keys, and its locale and time zone."""

    volume: str = Field(description=_VOLUME)
    host_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$", max_length=253)] | None = (
        Field(default=None, description="Host name, with its domain if it has one.")
    )
    new_identity: bool = Field(
        default=True,
        description="Forget the image's machine id, SSH host keys and the identity of its fleetcast agent: each "
        "machine gets its own.",
    )
    locale: str = Field(default="", description="Such as `de_DE.UTF-8`.")
    time_zone: Annotated[str, Field(pattern=r"^[A-Za-z0-9_+/-]*$")] = Field(
        default="", description="Such as `Europe/Berlin`."
    )


class Adapter(SequenceModel):
    """Settings of one network adapter."""

    mac: Mac | None = Field(
        default=None, description="Its MAC address; the machine's adapters in their order by default."
    )
    name: str = Field(default="", description="Name in the new system, if it is known.")
    dhcp: bool = Field(default=True, description="Addresses by DHCP.")
    addresses: list[str] = Field(default=[], description="Fixed addresses with prefix length, such as `192.0.2.10/24`.")
    gateway: str = Field(default="", description="Default gateway.")
    dns: list[str] = Field(default=[], description="Name servers.")
    search: list[str] = Field(default=[], description="DNS search domains.")

    @field_validator("addresses")
    @classmethod
    def _addresses_parse(cls, value: list[str]) -> list[str]:
        for address in value:
            ip_interface(address)
            if "/" not in address:
                raise ValueError(f"{address} has no prefix length: write it like 192.0.2.10/24")
        return value


class ApplyNetworkSettings(SequenceModel):
    """Writes the network settings of the new system: to unattend.xml, systemd-networkd or ifupdown, as it has it."""

    volume: str = Field(description=_VOLUME)
    adapters: Annotated[list[Adapter], Field(min_length=1)] = Field(description="One entry for each adapter.")
    architecture: Literal["amd64", "arm64", "x86"] = Field(default="amd64", description="Of a Windows in the image.")


class DriverChoice(SequenceModel):
    """A driver package and the machines it is for."""

    package: ImageName = Field(description="The image that is the package: an archive with .inf files.")
    when: Condition = Field(default="true", description="Condition over `machine`, such as `machine.model == 'X1'`.")


class ApplyDriverPackage(SequenceModel):
    """Copies the first driver package whose condition holds into Windows, which installs it when it first starts."""

    volume: str = Field(description=_VOLUME)
    packages: Annotated[list[DriverChoice], Field(min_length=1)] = Field(description="The first match is taken.")
    match_required: bool = Field(default=False, description="Fail when no package matches.")
    delivery: Delivery = Field(default="prefer-multicast", description="As in `apply-operating-system`.")
    architecture: Literal["amd64", "arm64", "x86"] = Field(default="amd64", description="Of the Windows in the image.")


class ConfigureBoot(SequenceModel):
    """Makes the new system start: bootloader and, for Linux, the identifiers in /etc/fstab."""

    volume: str = Field(description=_VOLUME)
    efi_volume: str | None = Field(default=None, description="The EFI system partition; none on a BIOS machine.")
    system: Literal["linux", "windows"] = Field(
        default="linux", description="`windows` works in Windows PE, by bcdboot."
    )
    bootloader: Literal["grub", "none"] = Field(default="grub", description="`none` only writes /etc/fstab.")
    kernel_arguments: str = Field(default="", description="Added to the kernel's command line.")
