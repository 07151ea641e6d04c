"""The keys of one transmission. See WIRE.md, section 5."""

import secrets
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_BYTES = 32
INITIALIZATION_VECTOR_BYTES = 12
VERIFICATION_KEY_BYTES = 32
SALT_BYTES = 4


@dataclass(frozen=True)
class SealKeys:
    """What the members of one transmission know, and the tag that its datagrams carry."""

    key: bytes = field(repr=False)
    initialization_vector: bytes = field(repr=False)
    tag: int
    verification_key: bytes = b""
    """The public Ed25519 key of the sender: what the members know does not let one of them speak for it."""

    @property
    def salt(self) -> bytes:
        """The first bytes of every nonce."""
        return self.initialization_vector[:SALT_BYTES]

    @property
    def mask(self) -> int:
        """What the packet counter is combined with for the rest of the nonce."""
        return int.from_bytes(self.initialization_vector[SALT_BYTES:], "big")


@dataclass(frozen=True)
class SenderKeys(SealKeys):
    """What the sender of one transmission knows."""

    signing_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate, repr=False)

    @staticmethod
    def of(key: bytes, initialization_vector: bytes, tag: int, signing_seed: bytes) -> "SenderKeys":
        """Returns keys of which the private one is given as its 32 bytes."""
        signing_key = Ed25519PrivateKey.from_private_bytes(signing_seed)
        public = signing_key.public_key().public_bytes_raw()
        return SenderKeys(key, initialization_vector, tag, public, signing_key)

    @staticmethod
    def fresh() -> "SenderKeys":
        """Returns new random keys: a transmission never uses the keys of another, so a nonce never repeats."""
        return SenderKeys.of(
            secrets.token_bytes(KEY_BYTES),
            secrets.token_bytes(INITIALIZATION_VECTOR_BYTES),
            secrets.randbits(32),
            secrets.token_bytes(VERIFICATION_KEY_BYTES),
        )

    @property
    def public(self) -> SealKeys:
        """What receivers are given."""
        return SealKeys(self.key, self.initialization_vector, self.tag, self.verification_key)
