"""What an administrator may set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from fleetcast_kit.errors import InvalidArgumentError
from fleetcast_kit.process.settings import ServiceSettings
from fleetcast_kit.values.rates import parse_rate
from pydantic import Field, field_validator

from fleetcast_sender.engine.policy import SlowAction


def default_cache_directory() -> Path:
    """Returns where a sender without a chunk store keeps chunks: the system's place for root, else the user's own."""
    return Path("/var/cache/fleetcast") if os.geteuid() == 0 else Path.home() / ".cache" / "fleetcast"


def default_credentials_directory() -> Path:
    """Returns where a sender keeps who it is: the system's place for root, else the user's own."""
    root = Path("/var/lib") if os.geteuid() == 0 else Path.home() / ".local" / "share"
    return root / "fleetcast-sender"


class SenderSettings(ServiceSettings):
    """The settings of `fleetcast-sender`: table `sender` of the file."""

    table: ClassVar[str] = "sender"

    scheduler: str = ""
    """HOST:PORT of the scheduler."""
    catalog: str = ""
    """HOST:PORT of the catalog; empty means where the scheduler says that it is."""
    advertise: str = ""
    """HOST:PORT by which machines reach this sender; empty means the interface's address."""
    token: str = ""
    """Enrolment token of the role sender, for the first start."""
    token_file: Path | None = None
    """File with that token; `-` for standard input."""
    credentials: Path = Field(default_factory=default_credentials_directory)
    """Directory with the sender's certificate: ca.pem, cert.pem, key.pem."""
    chunk_store: Path | None = None
    """The catalog's chunk store, its DATA_DIR/store, if it is on this host; else chunks come over the network."""
    cache_dir: Path = Field(default_factory=default_cache_directory)
    cache_bytes: int = Field(default=64 << 30, ge=1 << 28)
    """Most that the cache of a sender without a chunk store takes of the disk."""
    site: str = ""
    """Free name of where the sender stands."""

    interface: str = ""
    """Name or address of the interface for multicast; empty means that with the address in `advertise` or `listen`,
    else the only one that there is."""
    link_rate: str = ""
    """Rate of that interface's link, such as `1G`; empty asks the system."""
    first_group: str = ""
    """Groups for transmissions, up to `last_group`. Empty means 239.192.64.0 to 239.192.79.255, of the range for
    organisations (RFC 2365), or ff05::f1ee:4000 to ff05::f1ee:7fff where the interface has no IPv4 address."""
    last_group: str = ""
    first_port: int = Field(default=64000, ge=1024, le=65535)
    last_port: int = Field(default=64255, ge=1024, le=65535)
    ttl: int = Field(default=1, ge=0, le=255)
    """Routers that datagrams may pass, plus one."""
    loop: bool | None = None
    """Whether receivers on this host hear the group; empty means: if the interface is loopback."""
    max_concurrent: int = Field(default=32, ge=1)
    """Most transmissions at once."""
    memory_bytes: int = Field(default=512 << 20, ge=64 << 20)
    """What one transmission may keep of windows."""
    symbol_bytes: int = Field(default=0, ge=0, le=8896, multiple_of=64)
    """T of WIRE.md, payload of a datagram; 0 chooses 1408 or what the MTU and the receivers allow."""
    codeword_symbols: int = Field(default=0, ge=0, le=4096)
    """k of WIRE.md, source symbols of a codeword; 0 chooses 500, or 1000 for more than 20 receivers."""
    window_codewords: int = Field(default=0, ge=0, le=4096)
    """D of WIRE.md, codewords of a window; 0 chooses 16 to 128 by the number of receivers. Less is taken where the
    receivers' memory or the image asks for it."""
    segmentation: bool = True
    """Whether the kernel cuts trains of datagrams (UDP_SEGMENT); turned off by itself where that does not work."""
    slow_policy: SlowAction = SlowAction.UNICAST
    """What becomes of receivers slower than the threshold: keep, unicast, separate or disconnect."""
    slow_threshold: float = Field(default=0.5, gt=0, lt=1)
    """Share of the group's median rate."""
    slow_seconds: float = Field(default=3.0, gt=0)
    """How long a receiver must be below it."""
    unicast_receivers: int = Field(default=1, ge=0)
    """Chunks that at most so many receivers lack go by unicast."""

    @field_validator("link_rate")
    @classmethod
    def _is_rate(cls, value: str) -> str:
        try:
            return value and str(parse_rate(value))
        except InvalidArgumentError as error:
            raise ValueError(error.message) from error

    @property
    def link_bits_per_second(self) -> int:
        """The link's rate as set; 0 if not."""
        return int(self.link_rate or 0)
