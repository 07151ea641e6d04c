"""The one form of a task sequence that its digest is made of."""

from __future__ import annotations

import hashlib
import json

from fleetcast_sequence.model import TaskSequence


def canonical(sequence: TaskSequence) -> bytes:
    """Returns the one form of `sequence` that its digest is made of: JSON, keys sorted, nothing that is a default."""
    plain = sequence.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(sequence: TaskSequence) -> str:
    """Returns `sha256:` and the hexadecimal digest of the canonical form."""
    return f"sha256:{hashlib.sha256(canonical(sequence)).hexdigest()}"


def from_canonical(content: bytes) -> TaskSequence:
    """Returns the task sequence whose canonical form is `content`."""
    return TaskSequence.model_validate_json(content)
