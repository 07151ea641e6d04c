"""What can end a reception: each says what is wrong, with which value, and what to do."""

from fleetcast_kit.errors import FleetcastError


class AgentError(FleetcastError):
    """Something on this machine, or said to it, that the agent cannot work with."""


class TargetError(AgentError):
    """The target cannot take the image: wrong kind, too small, busy, full, or failing."""


class JournalError(AgentError):
    """The state directory cannot keep the journal of a target."""


class InterfaceError(AgentError):
    """The network interface that was named does not exist or takes no multicast."""


class ChunkTableError(AgentError):
    """The chunk table that a sender gave is not that of the assigned image."""


class TransmissionError(AgentError):
    """What the sender said does not follow the protocol: the transmission cannot be received."""


class DismissedError(AgentError):
    """The scheduler ended this machine's part before it had the whole image."""


class InterruptedReceptionError(AgentError):
    """A signal ended the reception; the same command continues it."""
