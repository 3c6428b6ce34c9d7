"""Prune, distil and quantize in one run, for a CNN, a Transformer and an RNN."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgebm
from edgebm.cli.main import main
from edgebm.demo import CALIBRATION, TEST, demo_files
from edgebm.errors import ConstraintMissed, UnsupportedModel, UsageError
from edgebm.importers import import_model
from edgebm.passes.distill import Distill
from edgebm.passes.drop_blocks import DropBlocks
from edgebm.passes.prune import Prune
from edgebm.recipe import Recipe, SparsitySearch, load_recipe
from edgebm.search.float_race import not_faster
from edgebm.target import load_target

torch = pytest.importorskip("torch", reason="torch is not installed")

FEW = "few.npz"
BOARD = "cpu-x86-avx2"
QUICK: dict[str, Any] = {"threads": 1, "measure_s": 1.0}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prune")
    for name, content in demo_files().items():
        (path / name).write_bytes(content)
    with np.load(path / TEST) as test:
        np.savez(path / FEW, **{key: test[key][:60] for key in test.files})
    return path


def short(sparsity: float, tries: int = 1, steps: int = 60, **changes: Any) -> Recipe:
    """prune-int8 with one amount for units, no whole blocks, and a moment of teaching."""
    recipe, kept = load_recipe("prune-int8"), []
    for step in recipe.steps:
        if isinstance(step, DropBlocks):
            continue
        if isinstance(step, Prune):
            kept.append(replace(step, sparsity=sparsity, samples=32, round_to=2, **changes))
        elif isinstance(step, Distill):
            kept.append(replace(step, minutes=None, steps=steps, batch=32))
        else:
            kept.append(step)
    return replace(
        recipe,
        steps=tuple(kept),
        sparsity_search=SparsitySearch(tries=tries),
        precisions=("f32",),
        repair=None,
    )


@pytest.mark.parametrize("name", ["digits_transformer", "digits_lstm"])
def test_the_recipe_fits_every_family(name: str, folder: Path, tmp_path: Path) -> None:
    """Models of microseconds: whether cutting pays is up to the machine, what it does is not."""
    out = tmp_path / "m.edgebm"
    result = edgebm.compress(
        folder / f"{name}.onnx",
        data=folder / CALIBRATION,
        eval=folder / FEW,
        max_drop=3.0,
        recipe=short(0.3),
        out=out,
        **QUICK,
    )
    report = result.report
    (trial,) = report["pruning"]["trials"]
    # On some targets widths so small save no time, and nothing is cut.
    assert trial["params"] <= report["pruning"]["params"] == report["model"]["params"]
    assert any("pruned from" in note for note in trial["notes"])
    assert trial["taken"] == ("pruned" in report["after"]["candidate"])
    assert trial["taken"] or trial["why"]
    assert result.constraints_met
    assert not list(tmp_path.glob("*.resume*"))
    with np.load(folder / TEST) as test, edgebm.load(out) as session:
        images, labels = test["image"][:100], test["labels"][:100]
        hits = [
            next(iter(session.run(x[None]).values())).argmax() == y
            for x, y in zip(images, labels, strict=True)
        ]
    assert np.mean(hits) > 0.85


def test_a_student_is_taken_where_it_is_the_smallest(folder: Path, tmp_path: Path) -> None:
    """By size, on a board that is not timed: the whole data path from cutting to the bundle."""
    out = tmp_path / "m.edgebm"
    result = edgebm.compress(
        folder / "digits_cnn.onnx",
        data=folder / CALIBRATION,
        eval=folder / FEW,
        max_drop=10.0,
        recipe=replace(short(0.4, steps=150), prefer="size"),
        target=BOARD,
        out=out,
        keep=tmp_path / "keep",
        **QUICK,
    )
    report = result.report
    (trial,) = report["pruning"]["trials"]
    assert trial["taken"], trial["why"]
    assert "pruned+" in report["after"]["candidate"]
    student = import_model(tmp_path / "keep" / f"{BOARD}-student.onnx")
    assert student.param_count() == trial["params"] < report["model"]["params"]
    if not load_target(BOARD).missing():
        with edgebm.load(out) as session:
            assert session.report()["self_test"]


def test_amounts_are_bisected(folder: Path) -> None:
    """What cannot be kept is halved; the whole model is there when all fail."""
    result = edgebm.compress(
        folder / "digits_transformer.onnx",
        data=folder / CALIBRATION,
        eval=folder / FEW,
        max_drop=0.0,
        recipe=short(0.9, tries=2, steps=1),
        target=BOARD,
        **QUICK,
    )
    amounts = [trial["amount"] for trial in result.report["pruning"]["trials"]]
    assert amounts == [1.0, 0.5]
    first = result.report["pruning"]["trials"][0]
    assert first["float_ms"] is None  # another board is not timed here
    assert not first["taken"]
    assert first["why"]
    assert "pruned" not in result.report["after"]["candidate"]
    assert any("of the recipe's sparsity" in note for note in result.report["notes"])


def test_what_is_not_faster_is_refused_with_the_figures() -> None:
    assert not_faster(None) == ""
    assert not_faster((1.0, 0.6)) == ""
    assert "0.99 ms where the original takes 1" in not_faster((1.0, 0.99))
    assert "does not pay" in not_faster((1.0, 2.5))


def test_the_verb_measures_unless_told_not_to(folder: Path) -> None:
    """One unit less is no faster than noise: as luck has it, it is refused or timed."""
    model, data = folder / "digits_cnn.onnx", folder / CALIBRATION
    barely = [Prune(of="units", sparsity=0.05, round_to=1, samples=8)]
    timed, refused = timed_or_refused(model, data, barely)
    assert (timed is None) != (refused is None)
    if refused is not None:
        assert "does not pay" in str(refused)
        assert not_faster(refused.details["float_ms"])
        assert "--no-measure" in refused.hint
    if timed is not None:
        assert not not_faster(timed)
    made = edgebm.prune(model, data, steps=barely, measure=False)
    assert made.float_ms is None
    assert made.model.param_count() < import_model(model).param_count()
    assert any("pruned from" in note for note in made.notes)


def timed_or_refused(
    model: Path, data: Path, steps: list[Prune]
) -> tuple[tuple[float, float] | None, ConstraintMissed | None]:
    try:
        return edgebm.prune(model, data, steps=steps).float_ms, None
    except ConstraintMissed as error:
        return None, error


def test_the_command_writes_a_model(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p.onnx"
    model, data = str(folder / "digits_cnn.onnx"), str(folder / CALIBRATION)
    args = ["prune", model, "-d", data, "-s", "0.5", "--no-measure", "-o", str(out)]
    assert main([*args, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["path"] == str(out)
    assert printed["float_ms"] is None
    assert import_model(out).param_count() < import_model(Path(model)).param_count()
    assert main(args) == 2
    assert "give --force" in capsys.readouterr().err


def test_all_wrong_arguments_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = [
        "prune",
        "none.onnx",
        "-s",
        "1.0",
        "--blocks",
        "-0.1",
        "--rounds",
        "0",
        "--kinds",
        "tails",
    ]
    assert main([*args, "-o", str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    for fault in (
        "MODEL none.onnx", "--data is missing", "--sparsity 1 must be", "--blocks -0.1 must be",
        "--rounds 0", "--kinds has no tails", "is a folder",
    ):  # fmt: skip
        assert fault in printed


def test_a_model_with_nothing_to_prune(folder: Path) -> None:
    with pytest.raises(UnsupportedModel, match="nothing was cut") as caught:
        edgebm.prune(
            folder / "digits_cnn.onnx",
            folder / CALIBRATION,
            steps=[Prune(importance="magnitude")],
            ignored=["Conv", "ConvTranspose", "Gemm"],
        )
    assert caught.value.details["reasons"]


def test_layers_that_do_not_exist(folder: Path) -> None:
    steps = [Prune(ignored=("Convv",))]
    with pytest.raises(UsageError, match="names nothing in the model: Convv .near: Conv"):
        edgebm.prune(folder / "digits_cnn.onnx", folder / CALIBRATION, steps=steps)


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 7])
def test_sparsity_is_a_fraction(sparsity: float, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"version: 1\nsteps:\n  - kind: prune\n    sparsity: {sparsity}\n")
    with pytest.raises(edgebm.EdgebmError, match="sparsity"):
        load_recipe(path)


def test_steps_that_decide_come_later(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("version: 1\nsteps:\n  - kind: quantize_weights\n  - kind: prune\n")
    with pytest.raises(edgebm.EdgebmError, match="quantize_weights before prune"):
        load_recipe(path)


def test_nothing_of_it_needs_torch_to_be_read() -> None:
    assert importlib.util.find_spec("torch") is not None
    assert [s.kind for s in load_recipe("prune-int8").shrinking][-1] == "distill"
