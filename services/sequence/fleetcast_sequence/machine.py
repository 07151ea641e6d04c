"""What conditions and templates can ask of `machine`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

MACHINE_FIELDS = frozenset(
    {
        "name",
        "manufacturer",
        "model",
        "version",
        "serial",
        "uuid",
        "asset_tag",
        "board",
        "bios_version",
        "firmware",
        "architecture",
        "cpu_count",
        "memory_bytes",
        "external_power",
        "disks",
        "adapters",
        "mac_addresses",
    }
)
"""What the agent says of a machine; each is always there."""

RULE_NAMES = {
    "name": "display_name",
    "serial": "serial_number",
    "uuid": "smbios_uuid",
    "cpu_count": "processor_count",
}
"""What rules of collections call some of them; conditions understand both."""

_KNOWN = MACHINE_FIELDS | set(RULE_NAMES.values())
_TEXT = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")
_FIELD = re.compile(r"""(?<![\w.])machine\s*(?:\.\s*([A-Za-z_]\w*)|\[\s*(['"])([^'"]*)\2\s*\])""")
_INDEX = re.compile(r"""(?<![\w.])machine\s*\[\s*$""")


def unknown_fields(expression: str) -> Iterator[tuple[int, str]]:
    """Yields where an expression asks `machine` for a field that it does not have, and what is wrong with that."""
    quoted = [
        (found.start(), found.end())
        for found in _TEXT.finditer(expression)
        if not _INDEX.search(expression[: found.start()])
    ]
    for found in _FIELD.finditer(expression):
        field = found[1] or found[3]
        inside = any(start <= found.start() < end for start, end in quoted)
        if field in _KNOWN or inside:
            continue
        close = difflib.get_close_matches(field, _KNOWN, 1)
        hint = f"did you mean machine.{close[0]}?" if close else f"it has {', '.join(sorted(MACHINE_FIELDS))}"
        yield found.start(), f"a machine has no field {field!r}: {hint}"
