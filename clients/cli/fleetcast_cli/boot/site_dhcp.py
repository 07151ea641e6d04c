"""What a site enters in its own DHCP server in place of the boot service's answers."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address

from fleetcast_kit.errors import InvalidArgumentError

_BIOS, _UEFI = "fleetcast.0", "shimx64.efi"


def _address(server: str) -> IPv4Address:
    try:
        return IPv4Address(server)
    except AddressValueError as error:
        raise InvalidArgumentError(f"{server!r} is not an IPv4 address", field="--boot-server") from error


def dhcp_options(server: str, http_port: int) -> str:
    """Returns the options for any DHCP server, by the kind of machine (its option 93)."""
    address = _address(server)
    return (
        "machine                option 93  option 66       option 67\n"
        f"BIOS                   0          {address!s:<14}  {_BIOS}\n"
        f"UEFI by PXE            7, 9       {address!s:<14}  {_UEFI}\n"
        f"UEFI by HTTP           16         -               http://{address}:{http_port}/{_UEFI}\n"
        "\n"
        "UEFI by HTTP needs option 60 with the value HTTPClient in the answer. A server that cannot tell\n"
        f"kinds of machines apart serves UEFI alone: option 66 = {address}, option 67 = {_UEFI}."
    )


def isc_configuration(server: str, http_port: int) -> str:
    """Returns classes for ISC's DHCP server."""
    address = _address(server)
    return (
        "option arch code 93 = unsigned integer 16;\n"
        'class "fleetcast-pxe" {\n'
        '  match if substring(option vendor-class-identifier, 0, 9) = "PXEClient";\n'
        f"  next-server {address};\n"
        f'  if option arch = 00:00 {{ filename "{_BIOS}"; }} else {{ filename "{_UEFI}"; }}\n'
        "}\n"
        'class "fleetcast-http" {\n'
        '  match if substring(option vendor-class-identifier, 0, 10) = "HTTPClient";\n'
        '  option vendor-class-identifier "HTTPClient";\n'
        f'  filename "http://{address}:{http_port}/{_UEFI}";\n'
        "}"
    )


def dnsmasq_configuration(server: str, http_port: int) -> str:
    """Returns lines for dnsmasq."""
    address = _address(server)
    return (
        "dhcp-match=set:bios,option:client-arch,0\n"
        "dhcp-match=set:uefi,option:client-arch,7\n"
        "dhcp-match=set:uefi,option:client-arch,9\n"
        "dhcp-match=set:http,option:client-arch,16\n"
        f"dhcp-boot=tag:bios,{_BIOS},,{address}\n"
        f"dhcp-boot=tag:uefi,{_UEFI},,{address}\n"
        "dhcp-option-force=tag:http,60,HTTPClient\n"
        f"dhcp-boot=tag:http,http://{address}:{http_port}/{_UEFI}"
    )
