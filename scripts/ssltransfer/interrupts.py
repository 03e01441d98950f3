"""Ctrl-C: one line on the terminal instead of the errors of every job that it ends."""

import logging
import os
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn

STOPPED = "Stopped. Finished outputs are kept; the same command continues from here."


class QuietStop:
    """Handler of Ctrl-C in the process of a whole run.

    The first Ctrl-C prints `STOPPED` and leaves nothing else on the terminal; log files get every message. The process
    then ends as it would have.

    Parameters
    ----------
    logger : logging.Logger
        The logger of the run, whose handlers write to the terminal and to files.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self.logger = logger
        self.stopped = False
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> NoReturn:
        if not self.stopped:
            self.stopped = True
            os.write(sys.stderr.fileno(), f"\n{STOPPED}\n".encode())  # print may be in the middle of a line
            for handler in (*self.logger.handlers, *logging.getLogger("asyncio").handlers):
                if not isinstance(handler, logging.FileHandler):
                    handler.addFilter(lambda record: False)
            sys.excepthook = threading.excepthook = lambda *_: None
        raise KeyboardInterrupt


def end_quietly() -> None:
    """Let Ctrl-C end this process without a traceback; for jobs, whose run says that it was stopped."""
    sys.excepthook = lambda kind, error, trace: (
        None if issubclass(kind, KeyboardInterrupt) else sys.__excepthook__(kind, error, trace)
    )
