from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgebm.errors import RecipeError
from edgebm.recipe import list_recipes, load_recipe

INT8 = """\
version: 1
steps:
  - kind: fold_batchnorm
  - kind: quantize_weights
  - kind: quantize_activations
    observer: minmax
"""


def faults(tmp_path: Path, text: str | bytes) -> tuple[tuple[int, str, str], ...]:
    path = tmp_path / "r.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}:")
    return caught.value.faults


def test_recipes_that_come_along() -> None:
    assert list_recipes() == ["fp32", "int8", "int8-accurate", "prune-int8", "w4", "w8"]
    int8, fp32 = load_recipe("int8"), load_recipe("fp32")
    kinds = [step.kind for step in int8.steps]
    assert kinds == [
        "recognize_cells",
        "split_directions",
        "fold_batchnorm",
        "gru_reset_before",
        "equalize_channels",
        "smooth_activations",
        "quantize_weights",
        "quantize_recurrent",
        "quantize_activations",
        "correct_bias",
    ]
    assert int8.precisions == ("f32", "bf16", "f16")
    assert int8.subset_size == 300
    assert fp32.steps == ()
    assert fp32.precisions == ("f32",)
    assert (int8.name, fp32.name) == ("int8", "fp32")


@pytest.mark.parametrize(("name", "bits", "last"), [("w8", 8, "quantize_weights_only"),
                                                   ("w4", 4, "gptq")])  # fmt: skip
def test_recipes_for_weights_alone_prefer_small_files(name: str, bits: int, last: str) -> None:
    recipe = load_recipe(name)
    kinds = [step.kind for step in recipe.steps]
    place = kinds.index("quantize_weights_only")
    assert kinds[place - 1] == "fold_batchnorm"
    assert kinds[-1] == last
    assert getattr(recipe.steps[place], "bits") == bits  # noqa: B009 - one kind of several
    assert recipe.prefer == "size"
    assert load_recipe("int8").prefer == "latency"


def test_weights_alone_and_activations_contradict_each_other(tmp_path: Path) -> None:
    text = INT8.replace("kind: quantize_weights\n", "kind: quantize_weights_only\n")
    assert "quantize_weights_only and quantize_activations" in faults(tmp_path, text)[0][2]


def test_own_recipe_is_named_by_its_file_and_turns_into_json(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(INT8 + "preprocess: {size: [32, 32], mean: [0, 0.5, 1], std: [0.25]}\n")
    recipe = load_recipe(str(path))
    assert recipe.name == "mine"
    assert recipe.preprocess is not None
    assert recipe.preprocess.shape == (3, 32, 32)
    plain = json.loads(json.dumps(recipe.to_dict()))
    assert plain["steps"][2] == {"kind": "quantize_activations", "observer": "minmax"}
    assert plain["preprocess"]["size"] == [32, 32]


def test_preprocessing_in_the_graph(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    keys = "size: [32, 32], in_graph: true, source: [480, 640], source_color: bgr, input: image"
    path.write_text(f"{INT8}preprocess: {{{keys}}}\naudio: {{dtype: int16}}\n")
    recipe = load_recipe(path)
    assert recipe.preprocess is not None
    assert recipe.preprocess.frames == (480, 640)
    assert recipe.preprocess.frame_color == "bgr"
    assert recipe.audio is not None
    plain = json.loads(json.dumps(recipe.to_dict()))
    assert plain["preprocess"]["source"] == [480, 640]
    assert plain["audio"] == {"dtype": "int16", "input": "", "rate": None}


def test_three_faults_at_once_each_with_its_line(tmp_path: Path) -> None:
    text = INT8.replace("observer: minmax", "obsever: minmax").replace("version: 1", "version: 2")
    found = faults(tmp_path, text + "subset_size: many\n")
    assert [(line, where) for line, where, _ in found] == [
        (1, "version"),
        (6, "steps[2].obsever"),
        (7, "subset_size"),
    ]
    assert "did you mean 'observer'" in found[1][2]


@pytest.mark.parametrize(
    ("text", "line", "where", "words"),
    [
        (INT8.replace("minmax", "maximum"), 6, "steps[2].observer", "'minmax'"),
        (INT8.replace("fold_batchnorm", "fold_batchnorms"), 3, "steps[0]", "fold_batchnorms"),
        (INT8.replace("kind: quantize_weights", "bits: 8"), 4, "steps[1]", "'kind' is missing"),
        (INT8.replace("kind: quantize_weights", "kind: quantize_weights\n    bits: 9"), 5,
         "steps[1].bits", "less than or equal to 8"),
        (INT8.replace("version: 1\n", ""), 1, "version", "missing"),
        (INT8 + "precisions: [f32, f32]\n", 1, "file", "twice"),
        (INT8 + "precisions: [bf16]\n", 1, "file", "needs f32"),
        (INT8 + "precisions: [f33]\n", 7, "precisions[0]", "'f32', 'bf16' or 'f16'"),
        (INT8 + "preprocess: {size: [32, 32], means: [0.5]}\n", 7, "preprocess.means",
         "did you mean 'mean'"),
        (INT8 + "preprocess: {size: [32, 32],\n  source: [64, 64]}\n", 7, "preprocess",
         "in_graph: true"),
        (INT8 + "audio: {dtype: int8}\n", 7, "audio.dtype", "'int16'"),
        (INT8 + "version: 1\n", 7, "version", "already in line 1"),
        (INT8 + "version: '1\n", 8, "yaml", "unexpected end of stream"),
        (INT8 + "name: [\n", 8, "yaml", "expected"),
        ("just words\n", 1, "recipe", "keys and values"),
        ("", 1, "recipe", "keys and values"),
        ("version: &a [*a]\n", 1, "*a", "write the value out"),
        ("version: !!python/object:os.system {}\nsteps: []\n", 1, "yaml", "could not determine"),
        ("version: 1\nsteps: 2024-01-01\n", 2, "steps", "valid"),
        (b"\xff\xfe\x00", 1, "recipe", "not UTF-8"),
    ],
)  # fmt: skip
def test_a_fault_has_its_line(
    tmp_path: Path, text: str | bytes, line: int, where: str, words: str
) -> None:
    found = faults(tmp_path, text)
    assert len(found) == 1, found
    assert found[0][:2] == (line, where)
    assert words in found[0][2]


def test_unknown_recipe_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("int9")
    assert "did you mean 'int8'" in caught.value.hint
    with pytest.raises(RecipeError, match="is a folder"):
        load_recipe(tmp_path)
