from __future__ import annotations

import pytest
from fleetcast_sequence import ExpressionError, Redactor, Scope, Variable, VariableError, Variables
from hypothesis import given
from hypothesis import strategies as st

MACHINE = {"serial": "S1", "memory_bytes": 8 << 30}


def variables(**given_values: object) -> Variables:
    declared = {
        "host_name": Variable(default="PC-{{ machine.serial }}"),
        "count": Variable(type="integer", default=1),
        "fast": Variable(type="boolean", default=False),
        "password": Variable(secret=True, required=True),
        "greeting": Variable(default="hello {{ host_name }}"),
    }
    return Variables(declared, given_values.get("given", {}), context={"machine": MACHINE})  # type: ignore[arg-type]


@given(st.sets(st.sampled_from(list(Scope)), min_size=1))
def test_the_highest_scope_wins(scopes: set[Scope]) -> None:
    given_values = {scope: {"x": scope.name} for scope in scopes}
    assert Variables({"x": Variable()}, given_values).value("x") == max(scopes).name


def test_templates_in_defaults_see_the_machine_and_each_other() -> None:
    assert variables().value("greeting") == "hello PC-S1"


def test_a_value_set_by_a_step_is_taken_as_it_is() -> None:
    found = variables()
    found.set({"host_name": "{{ machine.serial }}"})
    assert found.value("host_name") == "{{ machine.serial }}"


def test_texts_of_operators_take_the_declared_type() -> None:
    found = variables(given={Scope.MACHINE: {"count": "7", "fast": "true"}})
    assert found.value("count") == 7
    assert found.value("fast") is True
    with pytest.raises(VariableError, match="declared as integer"):
        variables(given={Scope.MACHINE: {"count": "many"}})


def test_a_wrong_secret_is_not_repeated_in_the_error() -> None:
    with pytest.raises(VariableError) as caught:
        Variables({"pin": Variable(type="integer", secret=True)}, {Scope.MACHINE: {"pin": "geheim"}})
    assert "geheim" not in str(caught.value)


def test_required_variables_without_a_value_are_named() -> None:
    assert variables().missing() == ["password"]
    assert variables(given={Scope.DEPLOYMENT: {"password": "x"}}).missing() == []


def test_variables_computed_from_each_other_are_an_error_and_no_loop() -> None:
    found = Variables({"a": Variable(default="{{ b }}"), "b": Variable(default="{{ a }}")}, {})
    with pytest.raises(VariableError, match="a -> b -> a"):
        found.value("a")


def test_a_lone_expression_keeps_its_type_and_others_become_text() -> None:
    found = variables()
    assert found.render({"n": "{{ count + 1 }}", "t": ["x{{ count }}{{ fast }}"]}) == {"n": 2, "t": ["x1false"]}


def test_conditions_are_true_or_false_and_nothing_else() -> None:
    found = variables()
    assert found.holds("machine.memory_bytes >= 8 * 1024 * 1024 * 1024")
    assert found.holds("!has(machine.model) || machine.model.startsWith('X')")
    with pytest.raises(ExpressionError, match="neither true nor false"):
        found.holds("count")
    with pytest.raises(ExpressionError, match=r"test with has"):
        found.holds("machine.model == 'X'")
    with pytest.raises(VariableError, match="no variable 'nothing'"):
        found.holds("nothing == 1")


def test_an_expression_may_hold_braces() -> None:
    assert variables().render("{{ {'a': {'b': 1}}.a.b }}!") == "1!"


def test_a_secret_of_a_few_characters_is_no_mask_for_other_text() -> None:
    hide = Redactor(["x", "12345", "123456", "-----\nlonger line\nab"])
    assert hide("extra boxes: 12345 of 123456") == "extra boxes: 12345 of ***"
    assert hide("the longer line") == "the ***"
    assert [hide(text) for text in ("x", "12345", "ab")] == ["***"] * 3


def test_secrets_are_hidden_wherever_they_come_from() -> None:
    found = variables(given={Scope.COLLECTION: {"password": "old one"}, Scope.DEPLOYMENT: {"password": "Gehe!m"}})
    hide = Redactor(found.secrets())
    assert hide("login with Gehe!m, then old one") == "login with ***, then ***"
    assert found.public()["password"] == "***"
    assert found.public()["count"] == 1
