"""The key of a compiled model: each fact that matters changes it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgebm.runtime import cache_key
from edgebm.runtime.cache_key import differing, digest, model_facts, place_facts
from edgebm.runtime.cpu import parse_identity
from edgebm.runtime.engines import cache_facts
from edgebm.spec import EngineConfig, Manifest, Member, TensorSpec, Variant

CONFIG = EngineConfig(threads=2, settings={"A": "1"})
VARIANT = Variant(
    "t", "openvino", "f32", {"model.xml": "a.xml", "model.bin": "a.bin"}, CONFIG, "1"
)
MANIFEST = Manifest(
    "m", "0", (TensorSpec("x", "float32", (1, 4)),), (TensorSpec("y", "float32", (1, 4)),),
    (VARIANT,), members={"a.xml": Member("11", 3), "a.bin": Member("22", 4)},
)  # fmt: skip
X, Y = MANIFEST.inputs[0], MANIFEST.outputs[0]


def key(manifest: Manifest = MANIFEST, variant: Variant = VARIANT, **changes: Any) -> bytes:
    return digest(model_facts(manifest, variant, replace(CONFIG, **changes)))


def models() -> Iterator[tuple[str, bytes]]:
    yield "as it is", key()
    yield "weights", key(replace(MANIFEST, members={**MANIFEST.members, "a.bin": Member("23", 4)}))
    yield "graph", key(replace(MANIFEST, members={**MANIFEST.members, "a.xml": Member("1", 3)}))
    yield "size", key(replace(MANIFEST, members={**MANIFEST.members, "a.xml": Member("11", 4)}))
    yield "runtime", key(variant=replace(VARIANT, runtime="tensorrt"))
    yield "input name", key(replace(MANIFEST, inputs=(replace(X, name="z"),)))
    yield "input dtype", key(replace(MANIFEST, inputs=(replace(X, dtype="float16"),)))
    yield "input shape", key(replace(MANIFEST, inputs=(replace(X, shape=("n", 4)),)))
    yield "output shape", key(replace(MANIFEST, outputs=(replace(Y, shape=(1, 5)),)))
    yield "one more output", key(replace(MANIFEST, outputs=(Y, replace(Y, name="z"))))
    yield "threads", key(threads=1)
    yield "precision", key(precision="bf16")
    yield "static shapes", key(static_shapes=({"x": (1, 4)},))
    yield "other static shapes", key(static_shapes=({"x": (1, 5)},))
    yield "axes", key(axes={"n": (1, 2, 4)})
    yield "other axes", key(axes={"n": (1, 2, 5)})
    yield "two static shapes", key(static_shapes=({"x": (1, 4)}, {"x": (1, 5)}))
    yield "settings", key(settings={"A": "2"})
    yield "one more setting", key(settings={"A": "1", "B": "1"})


@pytest.mark.row(23)
def test_every_choice_gives_a_key_of_its_own() -> None:
    found = dict(models())
    assert len(set(found.values())) == len(found)


def test_equal_choices_give_one_key_in_any_order() -> None:
    twin = replace(VARIANT, files=dict(reversed(VARIANT.files.items())), target="other")
    one = key(settings={"A": "1", "B": "2"})
    assert key(variant=twin, settings={"B": "2", "A": "1"}) == one
    # A new self-test, another name: the same machine code.
    assert key(replace(MANIFEST, name="other", golden=3), settings={"B": "2", "A": "1"}) == one


PLACES: dict[str, Any] = {
    "edgebm": lambda patch, _: patch.setattr(sys.modules["edgebm"], "__version__", "9"),
    "format": lambda patch, _: patch.setattr(cache_key, "FORMAT", 99),
    "processor.flags": lambda patch, _: patch.setattr(
        cache_key, "cpu_identity", lambda: {**cache_key.parse_now(), "flags": ["sse2"]}
    ),
    "system.arch": lambda patch, _: patch.setattr(cache_key, "arch", lambda: "riscv64"),
    "system.name": lambda patch, _: patch.setattr(cache_key.platform, "system", lambda: "Hurd"),
    "system.libc": lambda patch, _: patch.setattr(cache_key, "_libc", lambda: "musl"),
    "system.byte_order": lambda patch, _: patch.setattr(sys, "byteorder", "big"),
    "device": lambda patch, path: patch.setattr(cache_key, "_MACHINE_ID", path),
    "environment.DNNL_X": lambda patch, _: patch.setenv("DNNL_X", "1"),
}


@pytest.mark.row(23)
@pytest.mark.parametrize("name", PLACES)
def test_every_place_gives_a_key_of_its_own(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = cache_key.cpu_identity()
    monkeypatch.setattr(cache_key, "parse_now", lambda: identity, raising=False)
    (tmp_path / "machine-id").write_text("of another device\n", encoding="ascii")
    before = place_facts({"version": "1"})
    PLACES[name](monkeypatch, tmp_path / "machine-id")
    after = place_facts({"version": "1"})
    assert digest(before) != digest(after)
    # ARM calls its flags features.
    assert differing(before, after) == [name]


@pytest.mark.row(23)
@pytest.mark.parametrize("name", ["version", "plugin", "libraries", "device", "options"])
def test_every_fact_of_the_vendor_gives_a_key_of_its_own(name: str) -> None:
    facts = cache_facts("openvino", EngineConfig())
    assert facts is not None
    assert facts[name]
    place = place_facts(facts)
    assert differing(place, place_facts({**facts, name: "other"})) == [f"vendor.{name}"]
    assert digest(place) != digest(place_facts({**facts, name: "other"}))
    json.dumps(place)


def test_threads_and_precision_are_among_the_vendor_s_options() -> None:
    one = cache_facts("openvino", EngineConfig(threads=1))
    other = cache_facts("openvino", EngineConfig(threads=2, precision="bf16"))
    assert one is not None
    assert other is not None
    assert differing(one, other) == [
        "options.INFERENCE_NUM_THREADS",
        "options.INFERENCE_PRECISION_HINT",
    ]


def test_a_processor_is_told_by_what_does_not_change() -> None:
    text = (
        "processor\t: {0}\nmodel name\t: A  B\nflags\t\t: fpu avx{1}\ncpu MHz\t\t: {2}\n"
        "bogomips\t: {2}\nCPU part\t: 0xd0b\nFeatures\t: fp asimd\n\n"
    )
    one = parse_identity(text.format(0, "", 1000) + text.format(1, "", 2000))
    assert one == {
        "model name": ["A B"],
        "flags": ["fpu avx"],
        "CPU part": ["0xd0b"],
        "Features": ["fp asimd"],
    }
    # Two kinds of cores are another processor than one.
    assert parse_identity(text.format(0, "", 1) + text.format(1, "2", 1)) != one
    assert parse_identity("") == {}
