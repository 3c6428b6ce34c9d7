"""Log-mel energies of speech at 8 kHz, computed as the samples come in.

Training and device use this very code. A frame is computed alone, in arrays that always have the
same shapes, so that its bits do not depend on how many samples came with it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE = 8000  # samples per second
WINDOW, HOP, BANDS = 200, 80, 40  # 25 ms every 10 ms
_FFT = 256
_LOWEST_HZ, _HIGHEST_HZ = 60.0, 3800.0
_FLOOR = 1e-6  # about the energy that the rounding to int16 has in a band

I16 = NDArray[np.int16]
F32 = NDArray[np.float32]


def mel_filters() -> F32:
    """Triangular filters [129, 40], evenly spaced on the mel scale.

    Source:
        O'Shaughnessy, "Speech Communication", 1987: mel = 2595 log10(1 + f / 700).
    """
    lowest, highest = 2595 * np.log10(1 + np.array([_LOWEST_HZ, _HIGHEST_HZ]) / 700)
    edges = 700 * (10 ** (np.linspace(lowest, highest, BANDS + 2) / 2595) - 1)
    bins = np.arange(_FFT // 2 + 1)[:, None] * RATE / _FFT
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


class LogMel:
    """Turns chunks of samples into frames; what is left over waits for the next chunk."""

    def __init__(self) -> None:
        self._mel = mel_filters()
        self._window = (np.hanning(WINDOW) / 32768).astype(np.float32)
        self._padded = np.zeros(_FFT, np.float32)
        self._held = np.zeros(0, np.int16)

    def push(self, samples: I16) -> F32:
        """The frames [n, 40] that `samples` complete; n is 0 as long as none is complete."""
        held = np.concatenate([self._held, samples])
        count = max(0, (len(held) - WINDOW) // HOP + 1)
        frames = np.empty((count, BANDS), np.float32)
        for i in range(count):
            self._frame(held[i * HOP : i * HOP + WINDOW], frames[i])
        self._held = held[count * HOP :]
        return frames

    def _frame(self, samples: I16, out: F32) -> None:
        np.multiply(samples, self._window, out=self._padded[:WINDOW])
        spectrum = np.fft.rfft(self._padded)
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
        np.log(power @ self._mel + np.float32(_FLOOR), out=out)


def log_mel(samples: I16) -> F32:
    """All frames [n, 40] of a recording."""
    return LogMel().push(samples)


def end_s(frame: int) -> float:
    """When the last sample of a frame was heard, in seconds after the first sample."""
    return (frame * HOP + WINDOW) / RATE
