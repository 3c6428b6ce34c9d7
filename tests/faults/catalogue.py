"""What can go wrong, by number: the rows of `docs/reference/faults.md`.

A row is survived when a test has the marker `row(number)`; nothing is to be changed here then. A
test that shows a part only has `row(number, partly=True)`. `why` says why a row is open as long as
no test proves all of it, or, with `applies=False`, why it is none of ours. After any change:
`pytest tests/faults/test_catalogue.py --update-golden` writes the page anew.
"""

from __future__ import annotations

from dataclasses import dataclass

BUNDLES = "Bundles and loading"
INPUTS = "Inputs"
PROCESS = "Process, threads, time"
DEVICE = "Device and runtime"
COMPRESSION = "Compression"
PARTS = (BUNDLES, INPUTS, PROCESS, DEVICE, COMPRESSION)

_GPU = "shown on a stand-in for GPU and TensorRT, never on a GPU"
_WORKER = "sessions run in the caller's process; there is no worker process"


@dataclass(frozen=True, slots=True)
class Row:
    """A fault, and why it is not survived while no test says that it is."""

    part: str
    fault: str
    why: str = ""
    applies: bool = True


def _part(part: str, first: int, *rows: tuple[str, str] | tuple[str, str, bool]) -> dict[int, Row]:
    return {number: Row(part, *row) for number, row in enumerate(rows, first)}


ROWS: dict[int, Row] = {
    **_part(
        BUNDLES,
        1,
        ("the file is cut off at any length, or empty", ""),
        ("one bit of the weights is flipped", ""),
        ("one bit of the manifest, of a header or of the hash itself is flipped", ""),
        ("4 KiB are zeroed", ""),
        ("a block is overwritten with another part of the file", ""),
        ("a Git LFS pointer, a web page, a gzip file, a directory, a FIFO", ""),
        ("member names that leave the folder: `../`, absolute, drives, NUL, backslashes", ""),
        ("links in the place of the bundle or of a member; a file exchanged while it is read", ""),
        ("bombs: compressed, overlapping, endless or doubled members", ""),
        ("weights in other files: FIFOs, devices, negative or huge offsets, any path", ""),
        ("declared sizes of 2^40, products that overflow, negative sizes", ""),
        ("a manifest that is huge, deep, ambiguous, or takes for ever to check", ""),
        ("a signature that is wrong, expired, by an unknown key or for another file", ""),
        ("an older version in the place of a newer one", ""),
        ("made for another version of edgebm, of ONNX or of its intermediate form", ""),
        ("a graph of few bytes that asks for gigabytes", ""),
        ("an endless loop in the graph", ""),
        ("branches nested 30 deep, 60,000 nodes", ""),
        ("rings, values nobody makes, unknown operators, foreign domains", ""),
        ("whole numbers divided by zero, rows outside a table, two values of one name",
         "refused on import where constants show it, and inputs that are row numbers are "
         "checked. A divisor or a row number that the model computes is not: OpenVINO then "
         "makes an answer up where ONNX Runtime fails"),
        ("NaN or infinity in the weights", ""),
        ("a pickle, a checkpoint or a compiled engine in the place of a bundle", ""),
        ("a compiled model of another processor, driver or version", ""),
        ("a compiled model that is cut off, changed or planted, a folder anyone may write to", ""),
        ("kill or power cut while a compiled model is written", ""),
        ("a full, read-only or failing disk", ""),
        ("two processes compile the same bundle at once", ""),
        ("no home folder, no permission, odd or overlong paths for the cache", ""),
        ("the golden samples give other answers here", ""),
        ("the bundle is replaced or cut off while it is in use", ""),
    ),
    **_part(
        INPUTS,
        31,
        ("another dtype: float64, float16, uint8, int64, bool, complex, objects", ""),
        ("the other byte order", ""),
        ("another rank, size or layout, no batch axis, an empty batch, two samples", ""),
        ("strided, reversed, Fortran-ordered, read-only, unaligned arrays, sub-classes", ""),
        ("NaN or infinity anywhere", ""),
        ("finite values far outside of what calibration saw", ""),
        ("a constant, black or frozen image, the same frame again", ""),
        ("missing, extra or misspelt names", ""),
        ("None, lists, texts, tensors of other packages and devices", ""),
        ("the caller changes an array while its frame waits", ""),
        ("the caller keeps an answer, and calls again", ""),
        ("token ids and other row numbers outside their table", ""),
        ("sequences longer than allowed, or of length zero", ""),
    ),
    **_part(
        PROCESS,
        44,
        ("many threads in one session", ""),
        ("fork after import or load, and a child that ends as programs do", ""),
        ("Ctrl-C or SIGTERM during a call", ""),
        ("use after close, closing twice, closing or dropping during a call", ""),
        ("the program ends while threads are in calls", ""),
        ("an error in the caller's callback", ""),
        ("the clock of the system jumps, the machine sleeps", ""),
        ("no more threads or open files to be had", ""),
        ("fewer processors than the machine has: affinity, cgroup quotas", ""),
        ("memory runs out while loading or in a call", ""),
        ("a worker process is killed, stopped or crashes", _WORKER, False),
        ("results are not fetched as fast as they are made", ""),
    ),
    **_part(
        DEVICE,
        56,
        ("the runtime is missing, broken or lacks a library", ""),
        ("the GPU is absent, hidden or in use", _GPU),
        ("the GPU is lost, or fails for good", _GPU),
        ("the GPU's memory runs out", _GPU),
        ("the runtime ends the process when it is imported: an instruction the processor lacks",
         ""),
        ("the processor is throttled by heat or power", ""),
        ("a runtime silently computes in another precision", ""),
        ("integer kernels that overflow, or are wrong on some processors", ""),
        ("the runtime is another version than the bundle was made with", ""),
        ("a driver upgrade between two starts", _GPU),
    ),
    **_part(
        COMPRESSION,
        66,
        ("no samples, one, all alike, with NaN, of another scale", ""),
        ("samples that calibrate are those that judge", ""),
        ("a model worse than its limit", ""),
        ("the run is interrupted or killed", ""),
        ("the output exists, is a folder, or is on another file system", ""),
        ("right on average, and one class lost", ""),
    ),
}  # fmt: skip
