"""Thousands of damaged and hostile bundles: each is refused as one, or is what was written."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from bundle_mutations import ACCEPTED, SOURCES, Mutations, verdict
from fault_bundles import DATA

COUNT = 10_000


@pytest.mark.row(2, 3)
def test_a_thousand_flipped_bits(tmp_path: Path) -> None:
    chance = random.Random(1)
    sources = [path.read_bytes() for path in sorted(DATA.glob("*.edgebm"))]
    for k in range(1000):
        data = bytearray(sources[k % len(sources)])
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        assert verdict(tmp_path / "b.edgebm", bytes(data)) == "bundle_corrupt"


@pytest.mark.row(1)
def test_four_hundred_lengths(tmp_path: Path) -> None:
    chance = random.Random(2)
    sources = [path.read_bytes() for path in sorted(DATA.glob("*.edgebm"))]
    for k in range(400):
        data = sources[k % len(sources)]
        found = verdict(tmp_path / "b.edgebm", data[: chance.randrange(len(data))])
        assert found in {"bundle_corrupt", "bundle_format"}


@pytest.mark.row(3, 5, 7, 9, 11, 12)
def test_what_is_not_refused_is_what_was_written(tmp_path: Path) -> None:
    sources = {path.read_bytes() for path in SOURCES}
    found: Counter[tuple[str, bool]] = Counter()
    for kind, data in islice(Mutations(3), COUNT):
        found[kind, verdict(tmp_path / "b.edgebm", data) == ACCEPTED and data not in sources] += 1
    assert sum(found.values()) == COUNT
    # Other texts and numbers make other manifests and samples, and no other file is a bundle.
    accepted = {kind for kind, is_accepted in found if is_accepted}
    assert {"manifest", "member"} <= accepted <= {"manifest", "member", "manifest_text"}
    kinds = {"raw", "resealed", "renamed", "manifest_text", "manifest", "member"}
    assert {kind for kind, is_accepted in found if not is_accepted} == kinds


def test_mutations_follow_their_seed(tmp_path: Path) -> None:
    first, again, other = (list(islice(Mutations(seed), 50)) for seed in (7, 7, 8))
    assert first == again
    assert first != other
    assert {verdict(tmp_path / "b", path.read_bytes()) for path in SOURCES} == {ACCEPTED}
