"""A built artifact with everything that is needed to open it: what a race or a trial runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.runtime.bundle import Bundle
from edgebm.runtime.engines import Engine, Request, open_engine
from edgebm.runtime.engines.compiled import Compiled
from edgebm.spec import EngineConfig, TensorSpec, Variant

Feeds = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Built:
    """Files of one artifact, the runtime that takes them and how it is asked to run them."""

    runtime: str
    files: Mapping[str, bytes]
    config: EngineConfig
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def open(self, compiled: Compiled | None = None) -> Engine:
        """Compile it, or read back what was compiled of it.

        Raises:
            BackendUnavailable: the vendor package is missing or does not load.
            BackendFailed: the vendor refuses the artifact.
        """
        face = (self.inputs, self.outputs)
        return open_engine(self.runtime, self.files, self.config, *face, compiled)


def built_of(bundle: Bundle, variant: Variant) -> Built:
    """`variant` with its files, to be opened."""
    manifest = bundle.manifest
    files = bundle.files(variant)
    return Built(variant.runtime, files, variant.config, manifest.inputs, manifest.outputs)


def bound(engine: Engine, inputs: Sequence[TensorSpec], feeds: Feeds) -> Request:
    """A new request with these feeds, one array for each input, in its tensors."""
    request = engine.request({spec.name: feeds[spec.name].shape for spec in inputs})
    fill(request, inputs, feeds)
    return request


def fill(request: Request, inputs: Sequence[TensorSpec], feeds: Feeds) -> None:
    """Write feeds into the tensors of a request for their shapes."""
    for buffer, spec in zip(request.inputs, inputs, strict=True):
        np.copyto(buffer, feeds[spec.name])


def files_sha256(files: Mapping[str, bytes]) -> str:
    """Hash of an artifact: of its files by their names."""
    total = hashlib.sha256()
    for short, content in sorted(files.items()):
        total.update(f"{short}:{hashlib.sha256(content).hexdigest()};".encode())
    return total.hexdigest()


def feeds_sha256(feeds: Feeds) -> str:
    """Hash of a sample: of its arrays by their names."""
    total = hashlib.sha256()
    for name, array in sorted(feeds.items()):
        total.update(f"{name}:{array.dtype.str}{array.shape};".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
