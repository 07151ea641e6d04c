"""The connected senders and their transmissions: which sender takes a session, groups and ports, commands."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from fleetcast_scheduler.senders.domain.commands import (
    AdmitParticipants,
    Command,
    CommandIssued,
    DismissParticipants,
    MoveToUnicast,
    SetTransmissionRate,
    StartTransmission,
    StopTransmission,
)
from fleetcast_scheduler.senders.domain.outcomes import (
    CapacityChanged,
    MachinesAdmitted,
    Outcome,
    TransmissionLost,
    TransmissionResumed,
)
from fleetcast_scheduler.senders.domain.policies import RatePolicy, SlowPolicy
from fleetcast_scheduler.senders.domain.sender import (
    Lease,
    Neighbourhood,
    Registration,
    Sender,
    choose_lease,
    multicast_warning,
)
from fleetcast_scheduler.senders.domain.timing import SenderTiming
from fleetcast_scheduler.senders.domain.transmission import (
    ReportState,
    Transmission,
    TransmissionReport,
    TransmissionState,
)

UNREACHABLE_SECONDS = 60.0
"""How long it counts that a machine could not reach its sender."""


class Place(Protocol):
    """What is known of one machine of a session."""

    address: str
    apart: bool


class Demand(Protocol):
    """A session, as far as senders need to know it."""

    name: str
    image: str
    site: str
    any_site: bool
    avoided_sender: str
    rate: RatePolicy
    slow_policy: SlowPolicy
    traceparent: str
    transmission_count: int

    @property
    def participants(self) -> Mapping[str, Place]:
        """By machine."""


class SenderPool:
    """Every sender, and every transmission that holds a lease."""

    def __init__(
        self,
        timing: SenderTiming,
        *,
        senders: Iterable[Sender] = (),
        transmissions: Iterable[Transmission] = (),
    ) -> None:
        self._timing = timing
        self.senders = {sender.name: sender for sender in senders}
        self.transmissions = {transmission.name: transmission for transmission in transmissions}
        """By name; those that ended stay until their lease has rested."""
        self.changed_senders: set[str] = set()
        self.changed: set[str] = set()
        """Names of the transmissions to be stored."""
        self.reported: set[str] = set()
        """Names of those of which only the totals are newer than stored."""
        self.commands: list[CommandIssued] = []
        self._unsettled: set[str] = set()
        self._epoch = 0

    def recover(self, now: float) -> None:
        """Call once after a restart: the senders have their grace from now on to come back."""
        for sender in self.senders.values():
            sender.contact_time = now
        for transmission in self.transmissions.values():
            if transmission.state is TransmissionState.STOPPING and transmission.release_time is None:
                self._abandon(transmission, now)

    # Senders

    def register(self, name: str, registration: Registration, running: Collection[str], now: float) -> list[Outcome]:
        """A sender opened its stream; `running` are the transmissions that it still runs."""
        self._epoch += 1
        sender = self.senders.get(name)
        if sender is None:
            sender = Sender(name=name, registration=registration, register_time=now, contact_time=now)
            self.senders[name] = sender
        sender.registration, sender.contact_time, sender.epoch = registration, now, self._epoch
        self.changed_senders.add(name)
        outcomes: list[Outcome] = [CapacityChanged()]
        for transmission in self._of(name):
            if transmission.name not in running:
                lost = transmission.state.live
                self._end(transmission, now)
                if lost:
                    outcomes.append(TransmissionLost(transmission.session, transmission))
            elif transmission.state.live:
                transmission.state, transmission.admitting = TransmissionState.RUNNING, False
                transmission.rate = None
                self.changed.add(transmission.name)
                outcomes.append(TransmissionResumed(transmission.session))
        for unwanted in running:
            known = self.transmissions.get(unwanted)
            if known is None or known.sender != name or not known.state.live:
                self._issue(sender, StopTransmission(unwanted))
        return outcomes

    def disconnect(self, name: str, epoch: int, now: float) -> None:
        """The sender's stream with this epoch broke. Nothing happens if the sender has a newer stream."""
        sender = self.senders[name]
        if sender.epoch != epoch:
            return
        sender.epoch, sender.contact_time = 0, now
        self.changed_senders.add(name)
        for transmission in self._of(name):
            transmission.admitting = False
            if transmission.state is TransmissionState.STOPPING:
                self._abandon(transmission, now)

    def drain(self, name: str, draining: bool) -> None:
        """Gives a sender no more sessions, or again some."""
        self.senders[name].draining = draining
        self.changed_senders.add(name)

    def connected(self, site: str = "") -> bool:
        """Returns whether any sender is there, of the site if it is not empty."""
        return any(one.connected and (not site or one.registration.site == site) for one in self.senders.values())

    def choose_sender(
        self, site: str = "", avoid: str = "", addresses: Iterable[str] = (), *, any_site: bool = False
    ) -> Sender | None:
        """Returns the sender for the next transmission; None if all are full, drained or gone.

        Only those of the `site` count, if it is not empty, unless `any_site`. One other than `avoid` comes first, then
        one of the site, then the one whose subnets hold the most of the machines' `addresses`, then the least loaded.
        """
        usable = (name for name, sender in self.senders.items() if sender.connected and not sender.draining)
        loads = dict.fromkeys(usable, 0)
        for transmission in self.transmissions.values():
            if transmission.state.live and transmission.sender in loads:
                loads[transmission.sender] += 1
        offers = {name: self.senders[name].registration for name in loads}
        free = [
            name
            for name, offer in offers.items()
            if (not offer.max_concurrent or loads[name] < offer.max_concurrent)
            and (any_site or not site or offer.site == site)
        ]
        near = Neighbourhood(addresses)
        name = min(
            free,
            key=lambda name: (
                name == avoid,
                bool(site) and offers[name].site != site,
                -near.count(offers[name].subnets),
                loads[name],
                name,
            ),
            default=None,
        )
        return None if name is None else self.senders[name]

    # Transmissions

    def open(self, session: Demand, machines: Iterable[str], now: float) -> Transmission | None:
        """Returns a new transmission for a session, with a lease, on its way to a sender; None if none can take it."""
        machines = tuple(machines)
        addresses = [session.participants[machine].address for machine in machines]
        sender = self.choose_sender(session.site, session.avoided_sender, addresses, any_site=session.any_site)
        if sender is None:
            return None
        name = f"{session.name}/transmissions/{session.transmission_count + 1}"
        lease = choose_lease(sender.registration, self.leases, name)
        if lease is None:
            return None
        session.transmission_count += 1
        rate = session.rate.at(now)
        transmission = Transmission(
            name=name,
            session=session.name,
            sender=sender.name,
            group=lease[0],
            port=lease[1],
            create_time=now,
            rate=rate,
            site="" if session.any_site else session.site,
        )
        transmission.moves = {machine: None for machine, one in session.participants.items() if one.apart}
        self.transmissions[name] = transmission
        self.changed.add(name)
        command = StartTransmission(
            transmission=name,
            image=session.image,
            group=lease[0],
            port=lease[1],
            rate=rate,
            machines=machines,
            traceparent=session.traceparent,
            slow_policy=session.slow_policy,
        )
        self._issue(sender, command)
        return transmission

    @property
    def leases(self) -> set[Lease]:
        """The groups and ports that nobody else may have now."""
        return {transmission.lease for transmission in self.transmissions.values()}

    def multicast_warning(self, transmission: Transmission) -> str:
        """Returns why its multicast may not reach its machines, and what to do; empty if nothing speaks for it."""
        if transmission.heard or not transmission.state.live:
            return ""
        sender = self.senders[transmission.sender]
        return multicast_warning(sender.name, sender.registration, transmission.addresses.values())

    def close(self, name: str, now: float) -> None:
        """Ends a transmission. Its lease rests once the sender has confirmed."""
        transmission = self.transmissions.get(name)
        if transmission is None or not transmission.state.live:
            return
        transmission.state = TransmissionState.STOPPING
        transmission.admissions.clear()
        transmission.dismissals.clear()
        transmission.moves.clear()
        sender = self.senders[transmission.sender]
        if sender.connected:
            self._issue(sender, StopTransmission(name))
        else:
            self._abandon(transmission, now)
        self.changed.add(name)

    def admit(self, name: str, machine: str) -> None:
        """Has the sender told of a machine, with the next batch."""
        transmission = self.transmissions[name]
        transmission.dismissals.pop(machine, None)
        transmission.admissions[machine] = None
        self._unsettled.add(name)

    def dismiss(self, name: str, machine: str) -> None:
        """Has the sender take a machine out, with the next batch."""
        transmission = self.transmissions.get(name)
        if transmission is not None and transmission.state.live:
            transmission.admissions.pop(machine, None)
            transmission.dismissals[machine] = None
            self._unsettled.add(name)

    def move_to_unicast(self, name: str, machine: str) -> None:
        """Has the sender serve a machine by unicast, with the next batch."""
        transmission = self.transmissions.get(name)
        if transmission is not None and transmission.state.live:
            transmission.moves[machine] = None
            self._unsettled.add(name)

    def forget_admission(self, name: str, machine: str) -> None:
        """A machine went away before the sender was told of it."""
        transmission = self.transmissions.get(name)
        if transmission is not None:
            transmission.admissions.pop(machine, None)

    def set_rate(self, name: str, rate: RatePolicy) -> None:
        """Has a transmission send at `rate`, unless its sender was told so already."""
        transmission = self.transmissions[name]
        sender = self.senders[transmission.sender]
        if transmission.rate != rate and sender.connected:
            transmission.rate = rate
            self._issue(sender, SetTransmissionRate(name, rate))

    def unreachable(self, name: str, machine: str, receiving_count: int, now: float) -> list[Outcome]:
        """A machine cannot reach its sender. If most cannot and there is another, the transmission is given up."""
        transmission = self.transmissions[name]
        transmission.unreachable[machine] = now
        lately_count = sum(now - time < UNREACHABLE_SECONDS for time in transmission.unreachable.values())
        other = self.choose_sender(transmission.site, transmission.sender)
        if 2 * lately_count <= receiving_count or other is None or other.name == transmission.sender:
            return []
        return [self._fail(transmission, f"{lately_count} machines cannot reach {transmission.sender}", now)]

    # What senders say

    def answer(self, sender: str, command: Command, error: str, now: float) -> list[Outcome]:
        """A sender answered a command; `error` is empty when it succeeded."""
        transmission = self.transmissions.get(command.transmission)
        if transmission is None or transmission.sender != sender:
            return []
        if isinstance(command, StopTransmission):
            if error:
                self._abandon(transmission, now)
                return []
            self._end(transmission, now)
            return [CapacityChanged()]
        if not transmission.state.live or not isinstance(command, StartTransmission | AdmitParticipants):
            return []
        if error:
            return [self._fail(transmission, error, now)]
        if isinstance(command, StartTransmission):
            transmission.state = TransmissionState.RUNNING
            self.changed.add(transmission.name)
        else:
            transmission.admitting = False
        self._unsettled.add(transmission.name)
        return [MachinesAdmitted(transmission, command.machines)]

    def report(self, sender: str, report: TransmissionReport, now: float) -> list[Outcome]:
        """A sender reported on a transmission."""
        transmission = self.transmissions.get(report.transmission)
        goes_on = report.state in (ReportState.SENDING, ReportState.IDLE)
        if transmission is None or transmission.sender != sender:
            if goes_on:
                self._issue(self.senders[sender], StopTransmission(report.transmission))
            return []
        transmission.totals = report.totals
        transmission.unicast = report.unicast
        self.reported.add(transmission.name)
        if goes_on or not transmission.state.live:
            return []
        return [self._fail(transmission, report.error or "the sender stopped it", now)]

    # Time

    def settle(self, now: float) -> list[Outcome]:
        """Sends what was gathered, moves what a dead sender had, and frees the leases that have rested."""
        for name in sorted(self._unsettled):
            self._send_batches(self.transmissions.get(name))
        self._unsettled.clear()
        outcomes: list[Outcome] = []
        for transmission in list(self.transmissions.values()):
            if transmission.release_time is not None:
                if now >= transmission.release_time:
                    del self.transmissions[transmission.name]
                    self.changed.discard(transmission.name)
                    outcomes.append(CapacityChanged())
            elif transmission.state.live:
                sender = self.senders[transmission.sender]
                if not sender.connected and now >= sender.contact_time + self._timing.sender_grace:
                    if self.choose_sender(transmission.site) is None:
                        continue
                    self.close(transmission.name, now)
                    outcomes.append(TransmissionLost(transmission.session, transmission))
        return outcomes

    def wake_time(self) -> float | None:
        """Returns when `settle` has something to do, if nothing happens before."""
        times = [
            transmission.release_time
            for transmission in self.transmissions.values()
            if transmission.release_time is not None
        ]
        times += [
            self.senders[transmission.sender].contact_time + self._timing.sender_grace
            for transmission in self.transmissions.values()
            if transmission.state.live
            and not self.senders[transmission.sender].connected
            and self.choose_sender(transmission.site) is not None
        ]
        return min(times, default=None)

    def _send_batches(self, transmission: Transmission | None) -> None:
        if transmission is None or transmission.state is not TransmissionState.RUNNING:
            return
        sender = self.senders[transmission.sender]
        if not sender.connected:
            return
        if transmission.dismissals:
            self._issue(sender, DismissParticipants(transmission.name, tuple(transmission.dismissals)))
            transmission.dismissals.clear()
        if transmission.admissions and not transmission.admitting:
            self._issue(sender, AdmitParticipants(transmission.name, tuple(transmission.admissions)))
            transmission.admissions.clear()
            transmission.admitting = True
        if transmission.moves:
            self._issue(sender, MoveToUnicast(transmission.name, tuple(transmission.moves)))
            transmission.moves.clear()

    def _fail(self, transmission: Transmission, error: str, now: float) -> TransmissionLost:
        self.close(transmission.name, now)
        return TransmissionLost(transmission.session, transmission, error)

    def _end(self, transmission: Transmission, now: float) -> None:
        if transmission.state is not TransmissionState.ENDED:
            transmission.state = TransmissionState.ENDED
            transmission.release_time = now + self._timing.quarantine
            self.changed.add(transmission.name)

    def _abandon(self, transmission: Transmission, now: float) -> None:
        """Frees the lease late: nobody confirms the stop, unless the sender comes back."""
        transmission.release_time = now + self._timing.abandoned
        self.changed.add(transmission.name)

    def _issue(self, sender: Sender, command: Command) -> None:
        self.commands.append(CommandIssued(sender.name, sender.epoch, command))

    def _of(self, sender: str) -> list[Transmission]:
        return [
            transmission
            for transmission in self.transmissions.values()
            if transmission.sender == sender and transmission.state is not TransmissionState.ENDED
        ]
