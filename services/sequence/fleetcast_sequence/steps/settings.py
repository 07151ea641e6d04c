"""Steps that make an applied image this machine's own system."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address, ip_interface
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from fleetcast_sequence.model import Condition, SequenceModel
from fleetcast_sequence.steps import regions
from fleetcast_sequence.steps.content import Delivery, ImageName

_VOLUME = "The volume with the new system."
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_NOT_IN_A_NAME = re.compile(r'["/\\\[\]:;|=,+*?<>]')


def _given(check: Callable[[str], str]) -> AfterValidator:
    """Returns what checks a value unless it is empty, which leaves the setting out."""
    return AfterValidator(lambda value: value and check(value))


def _text(value: str) -> str:
    """Returns a text that a file of settings can hold on one line."""
    if found := _UNPRINTABLE.search(value):
        raise ValueError(f"it has a character that cannot be written there: {found[0]!r}")
    return value


def _workgroup(value: str) -> str:
    if found := _NOT_IN_A_NAME.search(value):
        raise ValueError(f"a workgroup of Windows has no {found[0]!r} in its name")
    return value


def _host_name(value: str) -> str:
    for label in value.split("."):
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", label):
            raise ValueError(
                f"{label!r} is no part of a host name: at most 63 letters, digits and hyphens, no hyphen at an end"
            )
    return value


def _unit(value: str) -> str:
    if value and not re.match(r"(?i)(OU|CN|DC)=", value):
        raise ValueError(f"{value!r} is no distinguished name: write it like OU=Room 5,DC=example,DC=org")
    return value


def _address(value: str) -> str:
    if value:
        ip_address(value)
    return value


Text = Annotated[str, AfterValidator(_text)]
"""A text on one line."""
Mac = Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}$")]


class DomainJoin(SequenceModel):
    """An Active Directory domain to join."""

    name: Annotated[str, AfterValidator(_host_name), Field(max_length=253)] = Field(
        description="DNS name of the domain."
    )
    account: Annotated[Text, Field(min_length=1)] = Field(description="Account that may join machines.")
    password: Text = Field(description="Its password: a template of a secret variable.")
    organizational_unit: Annotated[Text, AfterValidator(_unit)] = Field(
        default="", description="Distinguished name of the unit for the machine."
    )


class ApplyWindowsSettings(SequenceModel):
    """Writes `Windows/Panther/unattend.xml`, from these fields or by merging them into a given file."""

    volume: str = Field(description=_VOLUME)
    answer_file: str | None = Field(
        default=None, description="An unattend.xml on the running system to merge the fields into."
    )
    computer_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]*[A-Za-z-][A-Za-z0-9-]*$", max_length=15)] | None = (
        Field(default=None, description="At most 15 letters, digits and hyphens, not only digits.")
    )
    organization: Annotated[Text, Field(max_length=256)] = Field(default="", description="Registered organisation.")
    owner: Annotated[Text, Field(max_length=256)] = Field(default="", description="Registered owner.")
    locale: Annotated[str, _given(regions.windows_locale)] = Field(
        default="", description="Language and formats, such as `de-DE`."
    )
    keyboard: Annotated[str, _given(regions.windows_keyboards)] = Field(
        default="", description="Keyboard, such as `de-DE` or `0407:00000407`; the locale's by default."
    )
    time_zone: Annotated[str, _given(regions.windows_zone)] = Field(
        default="", description="Time zone as Windows calls it, such as `W. Europe Standard Time`, or `Europe/Berlin`."
    )
    product_key: Annotated[str, Field(pattern=r"^([A-Za-z0-9]{5}-){4}[A-Za-z0-9]{5}$")] | None = Field(
        default=None, description="Five groups of five."
    )
    administrator_password: Annotated[Text, Field(min_length=1, max_length=127)] | None = Field(
        default=None, description="Password of the local administrator: a template of a secret variable."
    )
    domain: DomainJoin | None = Field(default=None, description="Domain to join.")
    workgroup: Annotated[Text, AfterValidator(_workgroup), Field(min_length=1, max_length=15)] | None = Field(
        default=None, description="Workgroup to join, in place of a domain."
    )
    architecture: Literal["amd64", "arm64", "x86"] = Field(default="amd64", description="Of the Windows in the image.")

    @model_validator(mode="after")
    def _domain_or_workgroup(self) -> ApplyWindowsSettings:
        if self.domain and self.workgroup:
            raise ValueError("give either `domain` or `workgroup`")
        return self


class ApplyLinuxSettings(SequenceModel):
    """Gives a Linux system its own host name, machine id and host keys, and its locale and time zone."""

    volume: str = Field(description=_VOLUME)
    host_name: (
        Annotated[
            str,
            AfterValidator(_host_name),
            Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$", max_length=253),
        ]
        | None
    ) = Field(default=None, description="Host name, with its domain if it has one.")
    new_identity: bool = Field(
        default=True,
        description="Forget the image's machine id, SSH host keys and the identity of its fleetcast agent: each "
        "machine gets its own.",
    )
    locale: Annotated[str, _given(regions.linux_locale)] = Field(default="", description="Such as `de_DE.UTF-8`.")
    time_zone: Annotated[str, _given(regions.linux_zone)] = Field(
        default="", description="Such as `Europe/Berlin`, or as Windows calls it."
    )


class Adapter(SequenceModel):
    """Settings of one network adapter."""

    mac: Mac | None = Field(
        default=None, description="Its MAC address; the machine's adapters in their order by default."
    )
    name: Text = Field(default="", description="Name in the new system, if it is known.")
    dhcp: bool = Field(default=True, description="Addresses by DHCP.")
    addresses: list[str] = Field(default=[], description="Fixed addresses with prefix length, such as `192.0.2.10/24`.")
    gateway: Annotated[str, AfterValidator(_address)] = Field(default="", description="Default gateway.")
    dns: list[Annotated[str, AfterValidator(_address)]] = Field(default=[], description="Name servers.")
    search: list[Annotated[str, AfterValidator(_host_name)]] = Field(default=[], description="DNS search domains.")

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
