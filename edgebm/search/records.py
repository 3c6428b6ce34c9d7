"""What decides a finding about a candidate: the keys under which the journal keeps it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from numpy.typing import NDArray

from edgebm.backends.runtimes import made_with
from edgebm.runtime.built import feeds_sha256, files_sha256
from edgebm.runtime.cpu import arch, cpu_features, cpu_name, usable_threads
from edgebm.runtime.journal import Journal
from edgebm.search.candidates import Artifact, Candidate, Face


class Records:
    """Findings about candidates on this machine, with one sample for their shapes.

    A key holds the bytes of the artifact and its configuration, the face and the sample, the
    processor, and the versions of Python, numpy, edgebm and the candidate's runtime.
    """

    def __init__(self, journal: Journal, face: Face, feeds: Mapping[str, NDArray[Any]]) -> None:
        self.journal, self.face, self.feeds = journal, face, feeds
        self._around = {**machine(), "face": asdict(face), "sample": feeds_sha256(feeds)}
        self._seen: dict[int, tuple[Artifact, str]] = {}

    def find(self, kind: str, candidate: Candidate, **more: Any) -> Any | None:
        """What is known of `candidate`, or None. `more` are JSON types that matter too."""
        return self.journal.find(kind, self.parts(candidate, **more))

    def keep(self, kind: str, candidate: Candidate, value: Any, **more: Any) -> None:
        """Keep `value`, JSON types, for `find` with the same arguments."""
        plain = [f"{key} {each}" for key, each in more.items() if isinstance(each, int)]
        about = ", ".join([candidate.id, *plain])
        self.journal.keep(kind, self.parts(candidate, **more), value, about)

    def parts(self, candidate: Candidate, **more: Any) -> dict[str, Any]:
        """Everything that decides a finding about `candidate`, in JSON types."""
        runtime = candidate.artifact.runtime
        made = made_with(runtime) or f"simulated on onnxruntime {version('onnxruntime')}"
        return {
            **self._around,
            "artifact": self._artifact(candidate.artifact),
            "runtime": [runtime, made],
            "config": asdict(candidate.config),
            **more,
        }

    def _artifact(self, artifact: Artifact) -> str:
        # The artifact itself is held, so that no other one gets its id.
        if id(artifact) not in self._seen:
            self._seen[id(artifact)] = (artifact, files_sha256(artifact.files))
        return self._seen[id(artifact)][1]


def machine() -> dict[str, Any]:
    """What else a measurement depends on: this processor and our own versions."""
    return {
        "cpu": [arch(), cpu_name(), sorted(cpu_features()), usable_threads()],
        "versions": [platform.python_version(), version("numpy"), version("edgebm")],
    }
