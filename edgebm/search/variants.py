"""What was chosen, and on demand all that was tried, as variants of a bundle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edgebm.backends.runtimes import is_gpu, made_with
from edgebm.errors import EdgebmError
from edgebm.runtime.built import files_sha256
from edgebm.runtime.cpu import cpu_features
from edgebm.search.candidates import Artifact, Candidate
from edgebm.search.found import Found
from edgebm.search.golden import Golden, golden_errors, tolerances
from edgebm.search.job import Job
from edgebm.search.simulate import provable
from edgebm.search.structure import structure_sha256
from edgebm.spec import Variant


@dataclass(slots=True)
class Packed:
    """The chosen variant of one target, every candidate if they are wanted, and their files.

    `tests` tells of each candidate how its self-test ended here, for the report, and
    `structures` by its name what decides how fast it is.
    """

    chosen: Variant
    files: dict[str, bytes]
    candidates: list[Variant] = field(default_factory=list)
    tests: list[dict[str, Any]] = field(default_factory=list)
    structures: dict[str, str] = field(default_factory=dict)


def packed(job: Job, found: Found, golden: Golden, *, everything: bool) -> Packed:
    """The variants of one target; with `everything` the candidates that were not chosen, too."""
    candidate = found.choice.chosen.candidate
    folder = f"variants/{found.target.name}/{candidate.artifact.runtime}"
    files = _members(candidate.artifact, folder)
    errors = golden_errors(job, found.provable, golden)
    out = Packed(_variant(found, candidate, files, errors), _bytes(candidate.artifact, files))
    if everything:
        _Everything(job, found, golden, out).add()
    return out


class _Everything:
    """Adds candidates one by one: equal files are stored once, and every name is taken once."""

    def __init__(self, job: Job, found: Found, golden: Golden, out: Packed) -> None:
        self.job, self.found, self.golden, self.out = job, found, golden, out
        chosen = found.choice.chosen.candidate
        self.folders = {files_sha256(chosen.artifact.files): dict(out.chosen.files)}
        self.errors: dict[tuple[str, str], dict[str, float]] = {}

    def add(self) -> None:
        """Every candidate that runs and could be shipped."""
        seen: set[str] = set()
        for outcome in self.found.outcomes:
            candidate = outcome.candidate
            sha256 = files_sha256(candidate.artifact.files)
            same = f"{sha256} {candidate.config}"
            if same in seen or outcome.status in {"failed", "needs_samples"}:
                continue
            seen.add(same)
            key = (sha256, candidate.answers_id)
            if key not in self.errors:
                self.errors[key] = self._tested(candidate)
            if self.errors[key]:
                self._append(candidate, sha256, self.errors[key])

    def _tested(self, candidate: Candidate) -> dict[str, float]:
        """Errors over the golden samples; {} if they cannot be answered, which is told."""
        try:
            errors = golden_errors(self.job, provable(candidate, self.found.target), self.golden)
        except EdgebmError as error:
            self._tell(candidate.id, failed=str(error))
            return {}
        if not all(map(math.isfinite, errors.values())):
            self._tell(candidate.id, failed="its answers to the golden samples are not finite")
            return {}
        return errors

    def _append(self, candidate: Candidate, sha256: str, errors: Mapping[str, float]) -> None:
        artifact = candidate.artifact
        if sha256 not in self.folders:
            place = f"candidates/{self.found.target.name}/{len(self.folders)}"
            self.folders[sha256] = _members(artifact, place)
        files = self.folders[sha256]
        variant = _variant(self.found, candidate, files, errors)
        taken = {each.id for each in self.out.candidates}
        number = 2
        while variant.id in taken:
            variant = replace(variant, precision=f"{candidate.precision}-{number}")
            number += 1
        self.out.candidates.append(variant)
        self.out.files |= _bytes(artifact, files)
        self.out.structures[variant.id] = structure_sha256(artifact)
        self._tell(variant.id, errors=errors)

    def _tell(
        self, name: str, *, errors: Mapping[str, float] | None = None, failed: str = ""
    ) -> None:
        self.out.tests.append({"name": name, "errors": dict(errors or {}), "failed": failed})


def _variant(
    found: Found, candidate: Candidate, files: Mapping[str, str], errors: Mapping[str, float]
) -> Variant:
    artifact, target = candidate.artifact, found.target
    # The host variant was measured on this very CPU; on a lesser one it may be wrong or slow.
    features = cpu_features() if target.is_host else frozenset(target.features)
    return Variant(
        target=target.name,
        runtime=artifact.runtime,
        precision=candidate.precision,
        files=files,
        config=candidate.config,
        runtime_version=made_with(artifact.runtime),
        requires=tuple(sorted(features)),
        tolerance=tolerances(errors, gpu=is_gpu(artifact.runtime)),
        layers=found.layers.get(candidate.id, {}),
        cells=found.cells.get(candidate.id, {}),
    )


def _members(artifact: Artifact, folder: str) -> dict[str, str]:
    return {short: f"{folder}/{short}" for short in artifact.files}


def _bytes(artifact: Artifact, files: Mapping[str, str]) -> dict[str, bytes]:
    return {files[short]: content for short, content in artifact.files.items()}
