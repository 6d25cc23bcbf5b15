"""Ctrl-C once: what is under way is finished, then the search stops. Twice: it stops now."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stopping(say: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Hear the first Ctrl-C without an exception; the second one is what it always is.

    Only a program's main thread can hear it; elsewhere nothing is changed.

    Args:
        say: gets the line for the person who pressed it.

    Returns:
        Whether it was pressed.
    """
    heard = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield heard.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def hear(number: int, frame: FrameType | None) -> None:
        if heard.is_set() or not callable(before):
            signal.default_int_handler(number, frame)
        heard.set()
        say("stopping when the candidates under way are finished; Ctrl-C again stops now")

    # Who starts a program deaf to Ctrl-C, as a shell does in the background, wants it so.
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, hear)
    try:
        yield heard.is_set
    finally:
        signal.signal(signal.SIGINT, before)
