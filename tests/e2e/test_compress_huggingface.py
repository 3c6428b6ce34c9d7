"""From a model folder and lines of text to a bundle, and from a decoder to a stream."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from text_models import WORDS, save_pooling, save_tokenizer, text_model
from tiny_models import QUICK

import edgebm
from edgebm.cli.main import cli
from edgebm.errors import DataError, InputShape, UsageError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers", reason="needs the extra huggingface")


def records(path: Path, *, labelled: bool = True) -> Path:
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        for label in rng.integers(0, 2, 60).tolist():
            text = " ".join(rng.choice(WORDS[4:], size=rng.integers(2, 9)))
            file.write(json.dumps({"text": text, **({"label": label} if labelled else {})}) + "\n")
    return path


def test_a_folder_and_texts_become_a_bundle(tmp_path: Path) -> None:
    folder = tmp_path / "reviews"
    model = text_model("BertForSequenceClassification")
    model.save_pretrained(folder)
    save_tokenizer(folder)
    data = records(tmp_path / "train.jsonl")
    recipe = tmp_path / "short.yaml"
    recipe.write_text(
        "version: 1\nsteps:\n- kind: quantize_weights\n- kind: quantize_activations\n"
        "text: {length: 12}\n"
    )
    out = tmp_path / "reviews.edgebm"
    command = ["compress", str(folder), "-d", str(data), "-r", str(recipe), "-o", str(out),
               "--metric", "top1", "--max-drop", "100", "--measure-seconds", "1", "--threads", "1",
               "--json"]  # fmt: skip
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0, result.output
    ids = torch.tensor([[2, 8, 4, 6, 3]])
    feeds = {"input_ids": ids, "attention_mask": torch.ones_like(ids),
             "token_type_ids": torch.zeros_like(ids)}  # fmt: skip
    with edgebm.load(out) as session:
        assert [spec.name for spec in session.inputs] == list(feeds)
        got = session.run({key: value.numpy() for key, value in feeds.items()})["logits"]
    expected = model(**feeds).logits.detach().numpy()
    assert np.abs(got - expected).max() < 0.2 * np.abs(expected).max()


def test_an_embedding_has_no_top1(tmp_path: Path) -> None:
    text_model("DistilBertModel", max_position_embeddings=128).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    save_pooling(tmp_path)
    data = records(tmp_path / "train.jsonl")
    with pytest.raises(DataError, match="'sentence_embedding' is a vector and no scores"):
        edgebm.compress(tmp_path, data=data, metric="top1", **QUICK)


def test_a_decoder_becomes_a_stream(tmp_path: Path) -> None:
    model = text_model("MarianMTModel")
    ids = torch.tensor([[5, 9, 30, 44, 2]])
    mask = torch.ones_like(ids)
    written = np.random.default_rng(0).integers(3, 60, (12, 6, 1, 1))
    with torch.no_grad():
        read = model.get_encoder()(ids, attention_mask=mask)
        tokens = torch.from_numpy(written[0, :, :, 0].T)
        told = model(
            encoder_outputs=read, attention_mask=mask, decoder_input_ids=tokens, use_cache=True
        )
    expected, cache = told.logits, told["cache"]
    cross = {
        f"cross.{layer}.{kind}": getattr(held, f"{kind}s").numpy()
        for layer, held in enumerate(cache.cross_attention_cache.layers)
        for kind in ("key", "value")
    }
    fixed = {"encoder_attention_mask": mask.numpy(), **cross}
    steps = {key: np.broadcast_to(value, (12, 6, *value.shape)) for key, value in fixed.items()}
    out = tmp_path / "step.edgebm"
    result = edgebm.compress(
        (model, "decoder"), data={"input_ids": written, **steps}, out=out, **QUICK
    )
    assert len(result.report["states"]) == 4
    with edgebm.load(out) as session, session.stream() as stream:
        for step in range(6):
            got = stream.step({"input_ids": written[0, step], **fixed})["logits"]
            want = expected[:, step].numpy()
            assert np.abs(got[:, 0] - want).max() < 0.3 * np.abs(want).max()


def test_more_tokens_than_positions_are_refused_before_and_on_the_device(tmp_path: Path) -> None:
    model = text_model("BertModel")
    ids = np.random.default_rng(0).integers(0, 60, (12, 41))
    fed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": 0 * ids}
    out = tmp_path / "words.edgebm"
    quick = {"recipe": "fp32", "out": out, **QUICK}
    with pytest.raises(DataError, match="has 41 tokens in .*, and the model counts 40"):
        edgebm.compress(model, data=fed, **quick)
    whole = {name: array[:, :40] for name, array in fed.items()}
    with pytest.raises(UsageError, match="--shapes: .* the model counts 40"):
        edgebm.compress(model, data=whole, shapes={"input_ids": [(1, 41)]}, **quick)
    edgebm.compress(model, data=whole, **quick)
    with edgebm.load(out) as session:
        assert session.run({name: array[:1] for name, array in whole.items()})
        with pytest.raises(InputShape, match="tokens"):
            session.run({name: array[:1] for name, array in fed.items()})
