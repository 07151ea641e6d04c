"""Remarks: what does not change the worth of a run's result, but must be known. They make it succeed with remarks."""

from __future__ import annotations

from fleetcast_agent.sequence.engine.records import NodeId
from fleetcast_agent.sequence.engine.state import RunState

MAX_REMARKS = 50
"""Remarks of one run at most: nobody reads more of one machine."""
MAX_LENGTH = 500
"""Characters of a remark."""
AND_MORE = "there are more remarks: they are in the log of the run"


def new_remark(state: RunState, node: NodeId, sentence: str) -> str:
    """Returns the text to keep of what a step remarks; empty if there is nothing to say, or it was said before.

    A step that runs again after an interruption says the same again.
    """
    text = " ".join(sentence.split())
    if len(text) > MAX_LENGTH:
        text = text[: MAX_LENGTH - 1] + "…"
    if len(state.remarks) == MAX_REMARKS - 1:
        text = text and AND_MORE
    if len(state.remarks) >= MAX_REMARKS or any((one.node, one.text) == (node, text) for one in state.remarks):
        return ""
    return text
