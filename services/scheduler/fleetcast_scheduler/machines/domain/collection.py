"""Collections: sets of machines, by name and by a rule over their hardware."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any

from fleetcast_kit.errors import InvalidArgumentError

from fleetcast_scheduler.machines.domain.machine import Disk, Inventory, Machine
from fleetcast_scheduler.machines.domain.maintenance import MaintenanceWindow

MAX_RULE_LENGTH = 4096
_TEXT = re.compile(r"""("|')(?:\\.|(?!\1).)*\1""")
_FIELD = re.compile(r"\bmachine\s*\.\s*([A-Za-z_]\w*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """A set of machines."""

    name: str
    """`collections/{id}`."""
    create_time: float
    description: str = ""
    rule: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    protected: bool = False
    maintenance_windows: tuple[MaintenanceWindow, ...] = ()
    """When required deployments may begin on its machines; none: at any time."""
    edit_count: int = 0


class Rule:
    """An expression over a machine."""

    def __init__(self, text: str, *, stored: bool = False) -> None:
        """Compiles `text`, and checks what it names unless it was `stored` before: that may be by an older program.

        Raises:
            InvalidArgumentError: it is not an expression of the Common Expression Language.
        """
        if len(text) > MAX_RULE_LENGTH:
            raise InvalidArgumentError(
                f"the rule has {len(text)} characters: {MAX_RULE_LENGTH} are the most", field="rule"
            )
        import cel  # noqa: PLC0415 - its package imports a whole prompt: 0.4 s of every start, for rules alone

        try:
            self._program = cel.compile(text)
        except ValueError as error:
            raise InvalidArgumentError(
                f"the rule {text!r} cannot be read: {str(error).splitlines()[0]}", field="rule"
            ) from error
        self._resource_names = "machines/" in text
        if not stored:
            self._check(text)

    def holds(self, machine: Machine) -> bool:
        """Returns whether it holds for a machine. What cannot be computed for this machine does not hold."""
        try:
            return self._program.execute({"machine": self._fields(machine)}) is True
        except (LookupError, NameError, RuntimeError, TypeError, ValueError, ArithmeticError):
            return False

    def _check(self, text: str) -> None:
        """Tries the rule on a machine with one of everything."""
        example = Machine(
            name="machines/example",
            create_time=0.0,
            inventory=Inventory(mac_addresses=("aa:bb:cc:dd:ee:ff",), disks=(Disk(),)),
        )
        fields = self._fields(example)
        for name in _FIELD.findall(_TEXT.sub('""', text)):  # also where the example does not lead
            if name not in fields:
                known = ", ".join(sorted(fields))
                raise InvalidArgumentError(
                    f"the rule {text!r} names {name!r}, which a machine does not have: it has {known}", field="rule"
                )
        try:
            value = self._program.execute({"machine": fields})
        except KeyError as error:
            if "variables" in text:
                return  # which variables machines have is not known here
            raise InvalidArgumentError(
                f"the rule {text!r} names {error}, which a machine does not have", field="rule"
            ) from error
        except (LookupError, NameError, RuntimeError, TypeError, ValueError, ArithmeticError) as error:
            raise InvalidArgumentError(
                f"the rule {text!r} cannot be computed: {str(error).splitlines()[0]}", field="rule"
            ) from error
        if not isinstance(value, bool):
            raise InvalidArgumentError(f"the rule {text!r} gives {value!r}: it must be true or false", field="rule")

    def _fields(self, machine: Machine) -> dict[str, Any]:
        """Returns a machine by the names of its API and by those of conditions and templates, which mean the same.

        `name` is the name for people, as there; where a rule writes `machines/...`, it is the resource name.
        """
        inventory = machine.inventory
        fields = asdict(inventory)
        fields["disks"] = [disk | {"path": disk["device"], "serial": disk["serial_number"]} for disk in fields["disks"]]
        return fields | {
            "name": machine.name if self._resource_names else machine.display_name,
            "code": machine.code,
            "display_name": machine.display_name,
            "variables": machine.variables,
            "serial": inventory.serial_number,
            "uuid": inventory.smbios_uuid,
            "cpu_count": inventory.processor_count,
            "adapters": [{"mac": mac} for mac in inventory.mac_addresses],
        }
