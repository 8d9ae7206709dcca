"""Progress of long work: a bar on a terminal, log lines with rate and time left elsewhere."""

import sys
import time
from types import TracebackType

from absl import logging
from tqdm import tqdm


class Progress:
    """Shows how far a piece of long work is; use as a context manager and call `update`.

    On a terminal it is a tqdm bar. Elsewhere (a log file, CI) it is a log line at most every
    `log_every_s` seconds and one at the end, with the rate in `unit` per second and the time left.
    """

    def __init__(self, label: str, total: int | None, *, unit: str = "frame", initial: int = 0,
                 log_every_s: float = 10.0) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._done, self._initial, self._timed_from = initial, initial, initial
        self._log_every_s = log_every_s
        self._start = self._last_log = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(desc=label, total=total, unit=unit, initial=initial, leave=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
        elif exc_type is None and self._done > self._initial:
            self._log()

    def update(self, count: int = 1, note: str = "") -> None:
        """Counts `count` more units as done; `note` (for example a loss) is shown beside them.

        The rate is that of the units after the first call, before which programs are compiled.
        """
        if self._done == self._initial:
            self._start, self._timed_from = time.monotonic(), self._done + count
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
            if note:
                self._bar.set_postfix_str(note)
        elif time.monotonic() - self._last_log >= self._log_every_s:
            self._log(note)

    def _log(self, note: str = "") -> None:
        self._last_log = time.monotonic()
        rate = (self._done - self._timed_from) / max(self._last_log - self._start, 1e-9)
        left = ""
        if self._total is not None and rate > 0:
            left = f", {max(self._total - self._done, 0) / rate:.0f} s left"
        of = "" if self._total is None else f"/{self._total}"
        logging.info("%s: %d%s %ss, %.3g %s/s%s%s", self._label, self._done, of, self._unit, rate,
                     self._unit, left, f", {note}" if note else "")
