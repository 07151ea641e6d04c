"""Windows' answer file, unattend.xml: read, merged with settings, written."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from xml.etree import ElementTree as ET

from fleetcast_agent.sequence.errors import StepError

PATH = "Windows/Panther/unattend.xml"
"""Where Windows Setup looks for it on the volume of a new system."""

_NAMESPACE = "urn:schemas-microsoft-com:unattend"
_ACTIONS = "http://schemas.microsoft.com/WMIConfig/2002/State"
_DOCTYPE = re.compile(rb"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)

ET.register_namespace("", _NAMESPACE)
ET.register_namespace("wcm", _ACTIONS)


class Unattend:
    """An answer file."""

    def __init__(self, content: bytes | None, architecture: str) -> None:
        """Takes the file to add to, None for an empty one, and the `processorArchitecture` of new components.

        Raises:
            StepError: it is no answer file.
        """
        self._architecture = architecture
        if content is None:
            self._root = ET.Element(f"{{{_NAMESPACE}}}unattend")
            return
        if _DOCTYPE.search(content):
            raise StepError("the answer file declares a document type, which no answer file needs: take it out")
        try:
            self._root = ET.fromstring(content)  # noqa: S314 - without a document type there are no entities
        except ET.ParseError as error:
            raise StepError(f"the answer file is not XML: {error}") from error
        if self._root.tag != f"{{{_NAMESPACE}}}unattend":
            raise StepError(f"the answer file must be an <unattend> of {_NAMESPACE}, not {self._root.tag}")

    def component(self, phase: str, name: str) -> ET.Element:
        """Returns the component `name` of the configuration pass `phase`, made if need be."""
        for settings in self._root.findall(f"{{{_NAMESPACE}}}settings"):
            if settings.get("pass") == phase:
                break
        else:
            settings = ET.SubElement(self._root, f"{{{_NAMESPACE}}}settings", {"pass": phase})
        for component in settings.findall(f"{{{_NAMESPACE}}}component"):
            if component.get("name") == name and component.get("processorArchitecture") == self._architecture:
                return component
        attributes = {
            "name": name,
            "processorArchitecture": self._architecture,
            "publicKeyToken": "31bf3856ad364e35",
            "language": "neutral",
            "versionScope": "nonSxS",
        }
        return ET.SubElement(settings, f"{{{_NAMESPACE}}}component", attributes)

    def set(self, phase: str, component: str, values: Mapping[str, str]) -> None:
        """Sets elements of a component by paths such as `Identification/JoinDomain`; empty values are left out."""
        parent = self.component(phase, component)
        for path, value in values.items():
            if value:
                element(parent, path).text = value

    def to_bytes(self) -> bytes:
        """Returns the file."""
        ET.indent(self._root)
        content: bytes = ET.tostring(self._root, encoding="utf-8", xml_declaration=True)
        return content


def element(parent: ET.Element, path: str) -> ET.Element:
    """Returns the element at `path` under `parent`, made if need be."""
    for name in path.split("/"):
        found = parent.find(f"{{{_NAMESPACE}}}{name}")
        parent = ET.SubElement(parent, f"{{{_NAMESPACE}}}{name}") if found is None else found
    return parent


def item(parent: ET.Element, name: str, key: str = "") -> ET.Element:
    """Returns a new member of a list, marked to be added, under its key if it has one."""
    attributes = {f"{{{_ACTIONS}}}action": "add"}
    if key:
        attributes[f"{{{_ACTIONS}}}keyValue"] = key
    return ET.SubElement(parent, f"{{{_NAMESPACE}}}{name}", attributes)


def clear(parent: ET.Element, path: str) -> ET.Element:
    """Returns the element at `path`, made or emptied."""
    found = element(parent, path)
    found.clear()
    return found


def hidden_password(password: str, kind: str) -> str:
    """Returns the form in which Windows System Image Manager hides a password; `kind` is its element's name."""
    return base64.b64encode(f"{password}{kind}".encode("utf-16-le")).decode()
