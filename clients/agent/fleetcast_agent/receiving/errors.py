"""What can end a reception: each says what is wrong, with which value, and what to do."""

from fleetcast_kit.errors import (
    AbortedError,
    DataLossError,
    FailedPreconditionError,
    FleetcastError,
    InvalidArgumentError,
)


class TargetRefusedError(FailedPreconditionError):
    """The target cannot take the image: wrong kind, too small, read-only or in use. Nothing was written."""


class TargetFailedError(FleetcastError):
    """The target failed while it was written: it is full, or its medium is broken."""


class JournalError(FailedPreconditionError):
    """The state directory cannot keep the journal of a target."""


class InterfaceError(InvalidArgumentError):
    """The network interface that was named does not exist or takes no multicast."""


class ChunkTableError(DataLossError):
    """The chunk table that a sender gave is not that of the assigned image."""


class TransmissionError(FleetcastError):
    """What the sender said does not follow the protocol: its transmission cannot be received."""


class MulticastError(FleetcastError):
    """The group cannot be joined on this machine; unicast still works."""


class DismissedError(AbortedError):
    """The scheduler ended this machine's part before it had the whole image."""


class InterruptedReceptionError(AbortedError):
    """A signal ended the reception; the same command continues it."""


class SenderLostError(FleetcastError):
    """The sender cannot be reached, or took this machine out: another assignment is needed."""


class SenderDismissedError(SenderLostError):
    """The sender took this machine out; it may come back."""


class GroupUnusableError(FleetcastError):
    """This machine cannot hear the sender's group for now: it goes on by unicast, and tries the group again later."""
