"""How far a run of sampling is: rates and the time left, in one line that moves on a terminal, in lines elsewhere."""

import sys
import time
from typing import TextIO


# Seconds between two lines where there is no terminal.
LINE_SECONDS = 30.0
BAR_SECONDS = 0.2
# The time left is not guessed from fewer samples, or from a smaller share: an engine's first ones are slow.
MIN_DONE = 8
MIN_SHARE = 0.01


class Progress:
    """Counts samples as they arrive and says so now and then. `name` stands before every line, for shards."""

    def __init__(self, num_samples: int, name: str = "", stream: TextIO | None = None) -> None:
        self.num_samples = num_samples
        self.num_done = 0
        self.num_tokens = 0
        self._name = f"{name}: " if name else ""
        self._stream = stream if stream is not None else sys.stderr
        self._is_terminal = self._stream.isatty()
        self._start = time.monotonic()
        self._last = self._start
        self._width = 0

    def add(self, num_tokens: int) -> None:
        """Count one sample."""
        self.num_done += 1
        self.num_tokens += num_tokens
        now = time.monotonic()
        if now - self._last >= (BAR_SECONDS if self._is_terminal else LINE_SECONDS):
            self._last = now
            self._show()

    def close(self) -> None:
        """Leave the terminal's last line as it stands."""
        if self._is_terminal and self._width:
            self._show()
            self._stream.write("\n")

    @property
    def seconds(self) -> float:
        return max(time.monotonic() - self._start, 1e-9)

    def rates(self) -> str:
        """Return the rates as they are shown."""
        return f"{self.num_done / self.seconds:.1f} samples/s, {self.num_tokens / self.seconds:,.0f} tokens/s"

    def _show(self) -> None:
        share = self.num_done / max(self.num_samples, 1)
        text = f"{self._name}{self.num_done:,} of {self.num_samples:,} samples ({share:.0%}), {self.rates()}"
        if self.num_done >= MIN_DONE and share >= MIN_SHARE:
            text += f", {duration((self.num_samples - self.num_done) * self.seconds / self.num_done)} left"
        if self._is_terminal:
            self._stream.write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()


def duration(seconds: float) -> str:
    """Return a time as people read it."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02} min"
