"""A camera: publishes frames at a fixed rate, whoever listens.

    python camera.py --frames camera.npz --fps 30

`--frames` is an .npz (its array `image`) or .npy file of uint8 frames [n, height, width, 3], shown
over and over. Once a second, and at the end, it publishes how many frames it has sent: so a
frame that nobody got is known, too. Ends with 0 on SIGTERM and Ctrl-C.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import zenoh
from bus import FRAME, MARK, BusError, Presence, Stop, Watch, add_ports, open_bus
from numpy.typing import NDArray
from wire import DTYPES, pack_frame, pack_mark


def read_frames(path: Path) -> NDArray[Any]:
    """Frames [n, ...] of a file.

    Raises:
        ValueError: there are none that can be sent.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        frames = loaded if isinstance(loaded, np.ndarray) else loaded["image"]
    except (OSError, ValueError, KeyError) as cause:
        raise ValueError(f"{path} has no frames: {cause}") from cause
    if not 2 <= frames.ndim <= 5 or not frames.size or frames.dtype not in DTYPES.values():
        raise ValueError(
            f"{path} has {frames.dtype}{list(frames.shape)}; frames [n, height, width, 3] of "
            "uint8 are expected"
        )
    return frames


class Camera:
    """Sends a frame at every tick. A tick that it slept through is a frame that it left out."""

    def __init__(self, session: zenoh.Session, ident: int) -> None:
        self.ident, self.sent, self.left_out = ident, 0, 0
        # An old frame is worth nothing: rather than to wait for a full queue, drop this one.
        self._frames = session.declare_publisher(
            FRAME, congestion_control=zenoh.CongestionControl.DROP, express=True
        )
        self._session = session

    def run(self, frames: NDArray[Any], fps: float, stop: Stop) -> None:
        """Until it shall stop."""
        start, tick, next_mark_s = time.monotonic(), 0, 0.0
        while not stop.wait(start + tick / fps - time.monotonic()):
            frame = frames[self.sent % len(frames)]
            self._frames.put(pack_frame(self.ident, self.sent, time.monotonic_ns(), frame))
            self.sent += 1
            now_s = time.monotonic()
            if now_s >= next_mark_s:
                self._mark()
                next_mark_s = now_s + 1
            due = int((now_s - start) * fps)
            self.left_out += max(0, due - tick - 1)
            tick = max(tick + 1, due)
        self._mark(zenoh.CongestionControl.BLOCK)  # the last word may take some time

    def _mark(self, full: zenoh.CongestionControl = zenoh.CongestionControl.DROP) -> None:
        """Say how many frames were sent."""
        mark = pack_mark(self.ident, self.sent, time.monotonic_ns())
        self._session.put(MARK, mark, congestion_control=full, express=True)


def main() -> int:
    """Open, send, say good-bye."""
    ident = time.monotonic_ns()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=Path, required=True, help=".npz or .npy")
    parser.add_argument("--fps", type=float, default=30)
    add_ports(parser)
    options = parser.parse_args()
    if not 0 < options.fps <= 10_000:
        parser.error("--fps must be above 0, and 10000 at most")
    try:
        frames = read_frames(options.frames)
    except ValueError as error:
        parser.error(str(error))
    stop = Stop().on_signals()
    try:
        session = open_bus("camera", options.ports)
    except BusError as error:
        print(error)
        return 5
    with session:
        presence = Presence(session, "camera", ident)
        presence.say("active")
        print(f"camera {ident}: {options.fps:g} frames a second", flush=True)
        Watch(session, ("camera", ident), lambda line: print(f"camera: {line}", flush=True))
        camera = Camera(session, ident)
        camera.run(frames, options.fps, stop)
        presence.say("finalized")
    print(f"camera {ident}: {camera.sent} frames sent, {camera.left_out} left out", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
