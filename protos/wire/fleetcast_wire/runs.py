"""Run-length coding of per-codeword numbers. See WIRE.md, section 7."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fleetcast_wire.errors import RunsError


def pack_runs(values: NDArray[np.int32]) -> tuple[list[int], list[int]]:
    """Returns the values and the lengths of the runs of equal numbers in `values`, shape (n,)."""
    if not len(values):
        return [], []
    starts = np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1])))
    lengths = np.diff(np.append(starts, len(values)))
    return values[starts].tolist(), lengths.tolist()


def unpack_runs(run_values: Sequence[int], run_lengths: Sequence[int], count: int) -> NDArray[np.int32]:
    """Returns the `count` numbers that the runs stand for.

    Raises:
        RunsError: the runs do not add up to `count`, or a number is negative or beyond 32 bits.
    """
    values = np.asarray(run_values, np.int64)
    lengths = np.asarray(run_lengths, np.int64)
    if values.shape != lengths.shape or (len(lengths) and lengths.min() < 1) or lengths.sum() != count:
        raise RunsError(f"{len(values)} values in runs of {lengths.sum()} in all do not fill {count} places")
    if len(values) and (values.min() < 0 or values.max() > np.iinfo(np.int32).max):
        raise RunsError("a deficit is negative or beyond 32 bits")
    return np.repeat(values, lengths).astype(np.int32)
