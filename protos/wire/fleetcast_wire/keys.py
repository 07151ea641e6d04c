"""The keys of one transmission. See WIRE.md, section 5."""

import secrets
from dataclasses import dataclass, field

KEY_BYTES = 32
INITIALIZATION_VECTOR_BYTES = 12
SALT_BYTES = 4


@dataclass(frozen=True)
class SealKeys:
    """The secret of one transmission, and the tag that its datagrams carry."""

    key: bytes = field(repr=False)
    initialization_vector: bytes = field(repr=False)
    tag: int

    @staticmethod
    def fresh() -> "SealKeys":
        """Returns new random keys: a transmission never uses the keys of another, so a nonce never repeats."""
        return SealKeys(
            secrets.token_bytes(KEY_BYTES), secrets.token_bytes(INITIALIZATION_VECTOR_BYTES), secrets.randbits(32)
        )

    @property
    def salt(self) -> bytes:
        """The first bytes of every nonce."""
        return self.initialization_vector[:SALT_BYTES]

    @property
    def mask(self) -> int:
        """What the packet counter is combined with for the rest of the nonce."""
        return int.from_bytes(self.initialization_vector[SALT_BYTES:], "big")
