from __future__ import annotations

import json

import pytest
from fleetcast_agent.sequence.simulation import plan, text
from fleetcast_sequence import Scope, Variables, parse

SOURCE = """\
name: a
variables:
  password: {secret: true}
  kind: lab
steps:
  - {name: Yes, type: gather-inventory, when: machine.serial == 'S1'}
  - name: No
    when: kind == 'office'
    steps: [{name: Inner, type: gather-inventory}]
  - {name: Off, type: gather-inventory, disabled: true}
  - {name: Ask, type: run-command, with: {command: [date], output_variable: today, environment: {P: '{{ password }}'}}}
  - {name: Later, type: gather-inventory, when: today == 'Monday'}
  - {name: Use, type: run-command, with: {command: [echo, '{{ today }}']}}
  - {name: Set, type: set-variables, with: {variables: {kind: office}}}
  - {name: Now, type: gather-inventory, when: kind == 'office'}
  - {name: Wrong, type: gather-inventory, when: "machine.disks[9].model == 'red'"}
  - {name: Bad, type: check-readiness, with: {min_memory: '{{ kind }}'}}
"""


def simulated() -> str:
    context = {"machine": {"serial": "S1"}, "deployment": {}, "environment": "boot", "last": {}}
    sequence = parse(SOURCE)
    given = {Scope.DEPLOYMENT: {"password": "Gehe!m"}}
    return text(plan(sequence, Variables(sequence.variables, given, context=context)))


def test_conditions_are_evaluated_for_the_machine() -> None:
    verdicts = {
        line.split("[")[0].split(maxsplit=2)[2].strip(): line.split()[0]
        for line in simulated().splitlines()
        if "[" in line and not line.startswith(" ")
    }
    assert verdicts == {
        "Yes": "runs",
        "No": "skipped",
        "Inner": "skipped",
        "Off": "skipped",
        "Ask": "runs",
        "Later": "depends",
        "Use": "runs",
        "Set": "runs",
        "Now": "runs",
        "Wrong": "fails",
        "Bad": "fails",
    }


def test_secrets_are_hidden_and_what_is_not_known_yet_stays_a_template() -> None:
    shown = simulated()
    assert "Gehe!m" not in shown
    assert '{"P": "***"}' in shown
    assert '["echo", "{{ today }}"]' in shown


@pytest.mark.parametrize("secret", ['Ge"he\\!m', "1234", "first line\nsecond line"])
def test_a_secret_is_hidden_whatever_it_is_made_of(secret: str) -> None:
    kind = "integer" if secret.isdecimal() else "string"
    sequence = parse(
        f"name: a\nvariables: {{password: {{secret: true, type: {kind}}}}}\nsteps:\n"
        "  - {name: Use, type: run-script, with: {script: 'true', stdin: 'it is {{ password }}', "
        "environment: {P: '{{ string(password) }}'}}}\n"
        "  - {name: Bad, type: check-readiness, with: {min_memory: '{{ password }}x'}}\n"
    )
    context = {"machine": {}, "deployment": {}, "environment": "boot", "last": {}}
    shown = text(
        plan(sequence, Variables(sequence.variables, {Scope.DEPLOYMENT: {"password": secret}}, context=context))
    )
    assert '"it is ***' in shown
    assert "fails    2 Bad" in shown
    for line in (secret, *secret.splitlines()):
        assert line not in shown
        assert json.dumps(line)[1:-1] not in shown
