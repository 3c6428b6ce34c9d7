"""Manifests and arrays that no writer of ours makes, in bundles that are otherwise whole."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fault_bundles import Edit, at, golden_replaced, members, with_manifest

from edgebm.errors import BundleCorrupt, BundleFormat, BundleIncompatible
from edgebm.runtime.bundle import read_bundle
from edgebm.runtime.container import MANIFEST, pack


@pytest.mark.row(11)
def test_more_golden_samples_than_there_are_is_refused(write: Callable[[bytes], Path]) -> None:
    with pytest.raises(BundleCorrupt, match=r"golden/2/inputs/0\.npy is missing"):
        read_bundle(write(with_manifest(lambda m: m.update(golden=10**12))))


MANIFESTS = {
    "huge": (b" " * (8 << 20) + b"{}", "more than 8388608"),
    "deep": (b"[" * 100_000, "nested deeper than 32"),
    "deep objects": (b'{"a":' * 33 + b"1" + b"}" * 33, "nested deeper"),
    "duplicate key": (b'{"name": 1, "name": 2}', "'name' comes twice"),
    "NaN": (b'{"a": NaN}', "NaN is not a number"),
    "infinity": (b'{"a": -Infinity}', "is not a number"),
    "too large": (b'{"a": 1e999}', "does not fit"),
    "lone surrogate": (b'{"a": "\\ud800"}', "not strict JSON"),
    "long number": (b'{"a": ' + b"1" * 5000 + b"}", "not strict JSON"),
    "not UTF-8": (b'{"a": "\xff"}', "not strict JSON"),
    "a list": (b"[]", "not a JSON object"),
    "an empty object": (b"{}", "manifest_version"),
    "version as flag": (b'{"manifest_version": true}', "manifest_version"),
}


@pytest.mark.row(12)
@pytest.mark.parametrize(("raw", "words"), MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_that_is_no_strict_json_is_refused(
    raw: bytes, words: str, write: Callable[[bytes], Path]
) -> None:
    with pytest.raises(BundleFormat, match=words):
        read_bundle(write(pack({**members(), MANIFEST: raw})))


EDITS: dict[str, tuple[Edit, str]] = {
    "flag for a number": (at("golden", value=True), "'golden' has a wrong type"),
    "text for a number": (at("golden", value="2"), "'golden' has a wrong type"),
    "float for a number": (at("golden", value=2.0), "'golden' has a wrong type"),
    "negative size": (at("members", "x", value={"sha256": "", "size": -1}), "'members'"),
    "number for a flag": (at("constraints_met", value=1), "'constraints_met'"),
    "unknown key": (at("nmae", value="x"), "'nmae' is unknown"),
    "unknown key inside": (at("inputs", 0, "typo", value=1), "'inputs' has a wrong type or field"),
    "negative axis": (at("inputs", 0, "shape", value=[-1]), "'inputs'"),
    "overflowing axes": (at("inputs", 0, "shape", value=[1 << 30, 1 << 30]), "2\\*\\*40"),
    "object dtype": (at("inputs", 0, "dtype", value="object"), "unknown dtype 'object'"),
    "free axis without range": (at("inputs", 0, "shape", value=["n", 3, 4, 5]), "no range"),
    "no variants": (at("variants", value=[]), "no variants"),
    "no threads": (at("variants", 0, "config", "threads", value=0), "threads must be 1"),
    "other file": (at("variants", 0, "files", "model.xml", value="/etc/passwd"), "not members"),
    "file name with a path": (at("variants", 0, "files", "../x", value="golden/0/inputs/0.npy"),
                              "no file names"),
    "negative tolerance": (at("variants", 0, "tolerance", "scores", value=-1), "negative"),
    "state of nothing": (at("states", value=[{"input": "a", "output": "b", "initial": ""}]),
                         "the state 'a'"),
    "range of nothing": (at("ranges", value={"q": [0, 1]}), "range of 'q'"),
    "index limit of a float": (at("index_limits", value={"image": 4}), "index limit of 'image'"),
    "hash that is none": (at("members", "golden/0/inputs/0.npy", "sha256", value="0"), "sha256"),
}  # fmt: skip


@pytest.mark.row(11)
@pytest.mark.parametrize(("edit", "words"), EDITS.values(), ids=EDITS)
def test_a_manifest_with_a_wrong_field_is_refused(
    edit: Edit, words: str, write: Callable[[bytes], Path]
) -> None:
    with pytest.raises(BundleFormat, match=words):
        read_bundle(write(with_manifest(edit)))


@pytest.mark.row(15)
def test_a_bundle_of_another_format_version_names_both(write: Callable[[bytes], Path]) -> None:
    with pytest.raises(BundleIncompatible, match="manifest_version 99, this edgebm reads 1"):
        read_bundle(write(with_manifest(at("manifest_version", value=99))))


def npy(array: Any, **how: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **how)
    return stream.getvalue()


GOLDEN = {
    "pickled objects": (npy(np.array([{}]), allow_pickle=True), "not a plain array"),
    "a claim of 8 TB": (npy(np.ones((1, 3, 4, 5))).replace(b"(1, 3, 4, 5)", b"(1, 3, 4, 10**9)"),
                        "not a .npy file|claims"),
    "a larger shape": (npy(np.ones((1, 3, 4, 5), "f4")).replace(b"4, 5)", b"4, 9)"), "claims"),
    "another dtype": (npy(np.ones((1, 3, 4, 5))), "the manifest says"),
    "another rank": (npy(np.ones((3, 4, 5), "f4")), "the manifest says"),
    "other byte order": (npy(np.ones((1, 3, 4, 5), ">f4")), "the manifest says"),
    "Fortran order": (npy(np.asfortranarray(np.ones((1, 3, 4, 5), "f4"))), "C order"),
    "no array": (b"hello", "not a .npy file"),
}  # fmt: skip


@pytest.mark.row(11, 22)
@pytest.mark.parametrize(("raw", "words"), GOLDEN.values(), ids=GOLDEN)
def test_a_golden_member_that_is_no_plain_array_is_refused(
    raw: bytes, words: str, write: Callable[[bytes], Path]
) -> None:
    bundle = read_bundle(write(golden_replaced(raw)))
    with pytest.raises(BundleFormat, match=words):
        bundle.golden(0)


SLOW = {
    "a string without an end": (b'"' + b'\\"' * 4_000_000, "not strict JSON"),
    "an end that is no end": (b'{"a": "' + b'\\"' * 4_000_000 + b"\\", "not strict JSON"),
    "doubled last key": (
        b"{" + b"".join(b'"%d":0,' % k for k in range(300_000)) + b'"299999":0}',
        "'299999' comes twice",
    ),
}


@pytest.mark.row(12)
@pytest.mark.parametrize(("raw", "words"), SLOW.values(), ids=SLOW)
def test_no_text_makes_the_check_take_for_ever(
    raw: bytes, words: str, write: Callable[[bytes], Path]
) -> None:
    """Each took minutes or hours where effort grows with the square of the length."""
    with pytest.raises(BundleFormat, match=words):
        read_bundle(write(pack({**members(), MANIFEST: raw})))


@pytest.mark.row(11, 12)
@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("inputs", 0, "shape"), [2**62] * 100_000, "more than 32 axes"),
        (("variants", 0, "config", "static_shapes"), [{"image": [2**62] * 50_000}], "2\\*\\*40"),
        (("variants", 0, "config", "static_shapes"), [{"image": [2**21, 2**20]}], "2\\*\\*40"),
    ],
)
def test_sizes_are_judged_before_anything_is_multiplied_or_made(
    path: tuple[str | int, ...], value: Any, words: str, write: Callable[[bytes], Path]
) -> None:
    with pytest.raises(BundleFormat, match=words):
        read_bundle(write(with_manifest(at(*path, value=value))))


@pytest.mark.row(11)
def test_a_free_axis_that_is_huge_at_its_smallest(write: Callable[[bytes], Path]) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        manifest["inputs"][0]["shape"] = ["n", 3, 4, 5]
        manifest["axes"] = {"n": [2**40, 2**41]}

    with pytest.raises(BundleFormat, match="more than 2\\*\\*40 elements"):
        read_bundle(write(with_manifest(edit)))


def test_an_index_limit_of_an_input_of_no_dtype(write: Callable[[bytes], Path]) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        manifest["inputs"][0]["dtype"] = "float33"
        manifest["index_limits"] = {"image": 4}

    with pytest.raises(BundleFormat, match="unknown dtype 'float33'; the index limit of 'image'"):
        read_bundle(write(with_manifest(edit)))
