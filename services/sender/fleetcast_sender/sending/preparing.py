"""The preparing thread: reads and encodes windows ahead of the sending thread, so that it never waits for a disk.

Work is done in the order in which the engine wants it: a window is loaded before it is encoded, and released last.
"""

import logging
import queue
import threading
from collections.abc import Callable

from fleetcast_kit.errors import FleetcastError

from fleetcast_sender.engine.engine import Engine
from fleetcast_sender.engine.passes import Work, WorkItem
from fleetcast_sender.sending.windows import WindowMemory

_logger = logging.getLogger(__name__)

Put = Callable[[Callable[[float], None]], None]
"""Hands an input to the engine, from any thread."""


class Preparer:
    """Does the engine's work on windows until stopped.

    Args:
        engine: only its layouts are read here.
        memory: of the windows.
        put: what is done is told by it.
        failed: called once, on this thread, when it cannot go on.
    """

    def __init__(
        self, engine: Engine, memory: WindowMemory, put: Put, failed: Callable[[FleetcastError], None]
    ) -> None:
        self._engine = engine
        self._memory = memory
        self._put = put
        self._failed = failed
        self._work: queue.SimpleQueue[WorkItem | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fleetcast-prepare", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def submit(self, item: WorkItem) -> None:
        """Have this done after what was submitted before."""
        self._work.put(item)

    def stop(self) -> None:
        """End the thread; what was not done is dropped. Blocks as long as the source does."""
        self._stopping.set()
        self._memory.stop()
        self._work.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            while (item := self._work.get()) is not None and not self._stopping.is_set():
                self._do(item)
        except FleetcastError as error:
            self._failed(error)
        except Exception as error:  # the thread's outermost frame
            _logger.exception("reading the image failed")
            self._failed(FleetcastError(f"reading the image failed: {error}", reason="INTERNAL"))

    def _do(self, item: WorkItem) -> None:
        number, window = item.pass_number, item.window
        if item.work is Work.RELEASE:
            self._memory.release(number, window)
            return
        layout = self._engine.layouts.get(number)
        if layout is None:
            return
        if item.work is Work.LOAD:
            self._memory.load(number, layout, window, lambda count: self._note_loaded(number, window, count))
        else:
            self._memory.encode(number, window, self._stopping.is_set)
            self._put(lambda now: self._engine.encoded(number, window))

    def _note_loaded(self, pass_number: int, window: int, symbol_count: int) -> None:
        self._put(lambda now: self._engine.loaded(pass_number, window, symbol_count))
