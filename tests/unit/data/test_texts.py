from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from text_models import save_tokenizer

from edgebm.data.samples import Samples, open_samples
from edgebm.data.texts import Texts
from edgebm.errors import DataError
from edgebm.recipe import load_recipe
from edgebm.spec import TensorSpec

pytest.importorskip("tokenizers", reason="needs the extra huggingface")

NAMES = ("input_ids", "attention_mask", "token_type_ids")
INPUTS = tuple(TensorSpec(name, "int64", ("batch", "tokens")) for name in NAMES)


def opened(path: Path, folder: Path, inputs: tuple[TensorSpec, ...] = INPUTS) -> Samples:
    return open_samples(path, inputs, texts=Texts(length=6).beside(f"{folder}"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tokenizer(tmp_path)
    return tmp_path


def write(folder: Path, *records: object) -> Path:
    path = folder / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, records)) + "\n")
    return path


def test_lines_become_tokens_of_one_length(folder: Path) -> None:
    path = folder / "data.txt"
    path.write_text("good film\n\nnot a very bad dull film\n")
    first, second = opened(path, folder).feeds()
    assert first["input_ids"].dtype == np.int64
    assert first["input_ids"].tolist() == [[2, 4, 6, 3, 0, 0]]
    assert first["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0]]
    assert second["input_ids"].tolist() == [[2, 9, 7, 8, 5, 3]]


def test_records_have_labels_and_pairs(folder: Path) -> None:
    path = write(
        folder,
        {"text": "good", "text_pair": "film", "label": 1},
        {"text": "bad", "text_pair": "film", "label": 0},
    )
    samples = opened(path, folder)
    feeds = next(samples.feeds())
    assert feeds["token_type_ids"].tolist() == [[0, 0, 0, 1, 1, 0]]
    assert samples.labels is not None
    assert samples.labels.tolist() == [1, 0]


def test_a_folder_of_texts_and_a_model_with_fewer_inputs(folder: Path) -> None:
    texts = folder / "texts"
    texts.mkdir()
    for number in range(3):
        (texts / f"{number}.txt").write_text("good film\nbad film")
    assert len(opened(texts, folder, INPUTS[:2])) == 6


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([{"sentence": "good"}], "line 1 has no text"),
        ([{"text": "good", "label": "pos"}], "the label 'pos' is no number"),
        ([{"text": "a", "label": 1}, {"text": "a"}], "some lines have a label"),
        ([["good"]], "is no JSON object"),
        ([], "is no line|no line"),
    ],
)
def test_records_that_cannot_be_used(folder: Path, records: list[object], words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        opened(write(folder, *records), folder)
    assert caught.value.hint


def test_texts_need_a_tokenizer_and_token_ids(folder: Path, tmp_path: Path) -> None:
    path = folder / "data.txt"
    path.write_text("good\n")
    with pytest.raises(DataError, match="there is no tokenizer.json") as caught:
        opened(path, tmp_path / "elsewhere")
    assert "save_pretrained" in caught.value.hint
    with pytest.raises(DataError, match="the model takes x"):
        opened(path, folder, (TensorSpec("x", "float32", ("batch", 4)),))
    with pytest.raises(DataError, match="not known here"):
        open_samples(path, INPUTS)
    path.write_bytes(b"\xff\xfe\x00g")
    with pytest.raises(DataError, match="no UTF-8"):
        opened(path, folder)
    path.write_text("\n \n")
    with pytest.raises(DataError, match="blank lines only"):
        opened(path, folder)
    (folder / "tokenizer.json").write_text("{}")
    path.write_text("good\n")
    with pytest.raises(DataError, match="no readable tokenizer"):
        opened(path, folder)


def test_the_recipe_says_length_and_tokenizer(folder: Path) -> None:
    (folder / "mine.yaml").write_text("version: 1\nsteps: []\ntext: {length: 32, tokenizer: t5}\n")
    recipe = load_recipe(folder / "mine.yaml")
    assert recipe.text.beside("bert") == Texts(length=32, tokenizer="t5")
    assert load_recipe("int8").text.beside("bert") == Texts(length=128, tokenizer="bert")


@pytest.mark.parametrize(
    ("config", "places"),
    [
        ({"model_type": "bert", "max_position_embeddings": 5}, 5),
        ({"model_type": "roberta", "max_position_embeddings": 7, "pad_token_id": 1}, 5),
    ],
)
def test_more_tokens_than_positions_are_refused(
    folder: Path, config: dict[str, object], places: int
) -> None:
    (folder / "config.json").write_text(json.dumps({"pad_token_id": 0} | config))
    path = write(folder, {"text": "good film"})
    with pytest.raises(DataError, match=f"become 6 tokens, .* positions for {places}") as caught:
        opened(path, folder)
    assert caught.value.hint.endswith(f"text: {{length: {places}}}")
    wide = config | {"max_position_embeddings": 60}
    (folder / "config.json").write_text(json.dumps({"pad_token_id": 0} | wide))
    assert len(opened(path, folder)) == 1
