"""Whatever anybody sends to the scheduler is understood or refused with a sentence."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from fleetcast.scheduler.v1 import (
    collection_service_pb2,
    deployment_pb2,
    enrolment_service_pb2,
    machine_service_pb2,
    participation_service_pb2,
    run_service_pb2,
    sender_registry_service_pb2,
    session_pb2,
)
from fleetcast_kit.errors import FleetcastError
from fleetcast_kit.rpc.request_ids import checked_request_id
from fleetcast_scheduler.deployments import convert as deployment_convert
from fleetcast_scheduler.deployments.runs import convert as run_convert
from fleetcast_scheduler.enrolment import convert as enrolment_convert
from fleetcast_scheduler.machines import convert as machine_convert
from fleetcast_scheduler.names import collection_name, deployment_name, image_name, machine_name, run_name, session_name
from fleetcast_scheduler.senders.convert import rate_of, registration_of, report_of, slow_policy_of
from fleetcast_scheduler.sessions import convert, policy_convert
from fleetcast_scheduler.sessions import participation_convert as stream_convert
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.protobufs import messages


def sound(message: deployment_pb2.Deployment) -> deployment_pb2.Deployment:
    """Returns a deployment with what is looked at first in order, so that the rest is looked at too."""
    message.collection, message.image = "collections/lab", "images/office"
    return message


READERS: list[tuple[type[Message], Callable[[Any], object]]] = [
    (session_pb2.StartRules, policy_convert.start_rules_of),
    (session_pb2.RatePolicy, rate_of),
    (session_pb2.AdmissionRules, policy_convert.admission_of),
    (session_pb2.SlowPolicy, slow_policy_of),
    (session_pb2.ReceptionTotals, stream_convert.totals_of),
    (participation_service_pb2.Join, lambda message: stream_convert.joiner_of("machines/a", message)),
    (sender_registry_service_pb2.SenderRegistration, registration_of),
    (sender_registry_service_pb2.TransmissionReport, report_of),
    (deployment_pb2.Deployment, lambda message: deployment_convert.deployment_of(sound(message))),
    (deployment_pb2.StepRun, run_convert.step_of),
    (run_service_pb2.RunProgress, run_convert.progress_of),
    (run_service_pb2.RunOutcome, run_convert.outcome_of),
    (machine_service_pb2.Inventory, machine_convert.inventory_of),
    (machine_service_pb2.RegistrationPolicy, machine_convert.policy_of),
    (collection_service_pb2.Collection, machine_convert.collection_of),
    (enrolment_service_pb2.CreateEnrolmentTokenRequest, enrolment_convert.role_of),
    (enrolment_service_pb2.CreateEnrolmentTokenRequest, enrolment_convert.lifetime_of),
    (
        enrolment_service_pb2.CreateEnrolmentTokenRequest,
        lambda message: checked_request_id(message.request_id),
    ),
]


@pytest.mark.parametrize(("kind", "read"), READERS, ids=lambda it: getattr(it, "__name__", ""))
@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_message_is_understood_or_refused(
    kind: type[Message], read: Callable[[Any], object], data: st.DataObject
) -> None:
    with suppress(FleetcastError):
        read(data.draw(messages(kind)))


@pytest.mark.parametrize(
    "read",
    [
        image_name,
        session_name,
        convert.awaited_of,
        convert.participant_name,
        deployment_name,
        run_name,
        machine_name,
        collection_name,
        machine_convert.time_zone_said,
        enrolment_convert.token_id_of,
        lambda text: machine_convert.local_time_of(text, "start"),
        lambda text: policy_convert.time_zone_of(text, "zone"),
    ],
)
@given(text=st.text(max_size=40))
def test_every_name_is_taken_or_refused(read: Callable[[str], object], text: str) -> None:
    with suppress(FleetcastError):
        read(text)
