"""Ctrl-C without a step cut in two: the first one asks a loop to stop, the second stops at once."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into an event that a loop looks at; a second one raises KeyboardInterrupt.

    Outside the main thread, where Python delivers no signals, the event is never set.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous = signal.getsignal(signal.SIGINT)

    def stop(_signal: int, _frame: object) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()
        log.warning("stopping after this step; interrupt again to stop at once")

    signal.signal(signal.SIGINT, stop)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, previous)
