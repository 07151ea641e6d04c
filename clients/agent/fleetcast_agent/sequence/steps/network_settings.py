"""The step that writes the network settings of a new system."""

from __future__ import annotations

import uuid
from ipaddress import ip_interface
from typing import Any

from fleetcast_sequence.steps.settings import Adapter, ApplyNetworkSettings

from fleetcast_agent.sequence.context import StepContext
from fleetcast_agent.sequence.disks import files, volumes
from fleetcast_agent.sequence.errors import StepError
from fleetcast_agent.sequence.steps.windows_settings import answer_file
from fleetcast_agent.sequence.unattend import Unattend, clear, element, item

_TCPIP = "Microsoft-Windows-TCPIP"
_DNS = "Microsoft-Windows-DNS-Client"
_ENABLED = "/etc/systemd/system/multi-user.target.wants"
_NETWORKD = "systemd-networkd.service"


async def apply_network_settings(arguments: ApplyNetworkSettings, context: StepContext) -> None:
    """Writes what the system on the volume reads."""
    volume = await volumes.find(context, arguments.volume)
    adapters = [_placed(adapter, index, context) for index, adapter in enumerate(arguments.adapters)]
    if await files.kind_of(context, volume) == "ntfs":
        async with answer_file(context, arguments.volume, arguments.architecture) as (_, answers):
            _windows(answers, adapters)
        return
    async with files.opened_tree(context, volume) as tree:
        if not tree.exists("/etc"):
            raise StepError(f"the volume {arguments.volume!r} holds no Linux system: it has no /etc")
        if tree.exists("/usr/sbin/ifup") or tree.exists("/sbin/ifup"):
            await tree.write("/etc/network/interfaces", _ifupdown(adapters).encode(), mode=0o644)
        elif tree.exists("/usr/sbin/NetworkManager"):
            for index, adapter in enumerate(adapters):
                path = f"/etc/NetworkManager/system-connections/fleetcast-{index}.nmconnection"
                await tree.write(path, _network_manager(adapter, index).encode(), mode=0o600)
        else:
            for index, adapter in enumerate(adapters):
                path = f"/etc/systemd/network/10-fleetcast-{index}.network"
                await tree.write(path, _networkd(adapter).encode(), mode=0o644)
            link = tree.place(_ENABLED) / _NETWORKD
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink() and not link.exists():
                link.symlink_to(f"/lib/systemd/system/{_NETWORKD}")


def _placed(adapter: Adapter, index: int, context: StepContext) -> Adapter:
    """Returns the settings with the MAC address and the name of the machine's adapter that they are for."""
    present: list[dict[str, Any]] = context.variables.context.get("machine", {}).get("adapters", [])
    if adapter.mac is not None:
        mac = adapter.mac.lower().replace("-", ":")
        name = adapter.name or next((entry["name"] for entry in present if entry["mac"] == mac), "")
        return adapter.model_copy(update={"mac": mac, "name": name})
    if adapter.name:
        return adapter
    if index >= len(present):
        raise StepError(
            f"the machine has {len(present)} network adapters, and there are settings for number {index + 1}"
        )
    return adapter.model_copy(update={"mac": present[index]["mac"], "name": present[index]["name"]})


def _networkd(adapter: Adapter) -> str:
    match = f"MACAddress={adapter.mac}" if adapter.mac else f"Name={adapter.name}"
    lines = ["[Match]", match, "", "[Network]", f"DHCP={'yes' if adapter.dhcp else 'no'}"]
    lines += [f"Address={address}" for address in adapter.addresses]
    lines += [f"Gateway={adapter.gateway}"] if adapter.gateway else []
    lines += [f"DNS={server}" for server in adapter.dns]
    lines += [f"Domains={' '.join(adapter.search)}"] if adapter.search else []
    return "\n".join(lines) + "\n"


def _ifupdown(adapters: list[Adapter]) -> str:
    lines = ["source /etc/network/interfaces.d/*", "", "auto lo", "iface lo inet loopback"]
    for adapter in adapters:
        if not adapter.name:
            raise StepError(f"ifupdown needs the name of the adapter {adapter.mac}: give `name`")
        lines += ["", f"auto {adapter.name}"]
        if adapter.dhcp:
            lines.append(f"iface {adapter.name} inet dhcp")
        for address in adapter.addresses:
            interface = ip_interface(address)
            lines += [
                f"iface {adapter.name} inet{'6' if interface.version == 6 else ''} static",
                f"\taddress {address}",
            ]
            if adapter.gateway and ip_interface(adapter.gateway).version == interface.version:
                lines.append(f"\tgateway {adapter.gateway}")
        lines += [f"\tdns-nameservers {' '.join(adapter.dns)}"] if adapter.dns else []
        lines += [f"\tdns-search {' '.join(adapter.search)}"] if adapter.search else []
    return "\n".join(lines) + "\n"


def _network_manager(adapter: Adapter, index: int) -> str:
    lines = ["[connection]", f"id=fleetcast-{index}", f"uuid={uuid.uuid4()}", "type=ethernet"]
    lines += [f"interface-name={adapter.name}"] if adapter.name and not adapter.mac else []
    lines += ["", "[ethernet]", *([f"mac-address={adapter.mac}"] if adapter.mac else [])]
    for version, section in ((4, "ipv4"), (6, "ipv6")):
        own = [address for address in adapter.addresses if ip_interface(address).version == version]
        method = "manual" if own and not adapter.dhcp else "auto" if adapter.dhcp else "disabled"
        lines += ["", f"[{section}]", f"method={method}"]
        lines += [f"address{number}={address}" for number, address in enumerate(own, 1)]
        for key, values in (("gateway", [adapter.gateway]), ("dns", adapter.dns)):
            mine = [value for value in values if value and ip_interface(value).version == version]
            lines += [f"{key}={';'.join(mine)}{';' if key == 'dns' else ''}"] if mine else []
        lines += [f"dns-search={';'.join(adapter.search)};"] if adapter.search else []
    return "\n".join(lines) + "\n"


def _windows(answers: Unattend, adapters: list[Adapter]) -> None:
    tcpip = clear(answers.component("specialize", _TCPIP), "Interfaces")
    dns = clear(answers.component("specialize", _DNS), "Interfaces")
    for adapter in adapters:
        identifier = (adapter.mac or adapter.name).replace(":", "-").upper() if adapter.mac else adapter.name
        interface = item(tcpip, "Interface")
        element(interface, "Identifier").text = identifier
        for version in (4, 6):
            own = [address for address in adapter.addresses if ip_interface(address).version == version]
            element(interface, f"Ipv{version}Settings/DhcpEnabled").text = "true" if adapter.dhcp else "false"
            for number, address in enumerate(own, 1):
                item(element(interface, "UnicastIpAddresses"), "IpAddress", f"v{version}-{number}").text = address
            if adapter.gateway and ip_interface(adapter.gateway).version == version:
                route = item(element(interface, "Routes"), "Route")
                element(route, "Identifier").text = str(version)
                element(route, "Prefix").text = "0.0.0.0/0" if version == 4 else "::/0"
                element(route, "NextHopAddress").text = adapter.gateway
        if adapter.dns or adapter.search:
            interface = item(dns, "Interface")
            element(interface, "Identifier").text = identifier
            for number, server in enumerate(adapter.dns, 1):
                item(element(interface, "DNSServerSearchOrder"), "IpAddress", str(number)).text = server
            if adapter.search:
                element(interface, "DNSDomain").text = adapter.search[0]
