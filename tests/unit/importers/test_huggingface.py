from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from text_models import save_pooling, text_model

from edgebm.errors import ModelError, UnsupportedModel
from edgebm.exec.collect import float_run
from edgebm.importers import import_model
from edgebm.importers.huggingface_folder import Pooling
from edgebm.ir.edit import name
from edgebm.ir.face import face
from edgebm.ir.model import Model

torch = pytest.importorskip("torch")
pytest.importorskip("transformers", reason="needs the extra huggingface")


def batch(batch: int = 3, tokens: int = 9) -> dict[str, Any]:
    """Ids 2 to 59, the last row padded."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(2, 60, (batch, tokens), generator=generator)
    mask = torch.ones_like(ids)
    ids[-1, 5:], mask[-1, 5:] = 0, 0
    types = torch.zeros_like(ids)
    types[:, 3:] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def answers(model: Model, feeds: dict[str, Any]) -> dict[str, Any]:
    wanted = {name(value) for value in model.graph.graph.inputs}
    return float_run(model)({key: f.numpy() for key, f in feeds.items() if key in wanted})


def close(got: Any, expected: Any) -> None:
    np.testing.assert_allclose(got, expected.detach().numpy(), rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def classifier() -> Any:
    return text_model("BertForSequenceClassification", num_labels=3)


@pytest.fixture(scope="module")
def imported(classifier: Any) -> Model:
    return import_model(classifier)


def test_a_live_classifier_answers_as_it_does_for_every_shape(
    classifier: Any, imported: Model
) -> None:
    inputs, outputs = face(imported)
    assert [(s.name, s.shape, s.dtype) for s in inputs] == [
        (each, ("batch", "tokens"), "int64")
        for each in ("input_ids", "attention_mask", "token_type_ids")
    ]
    assert [(s.name, s.shape) for s in outputs] == [("logits", ("batch", 3))]
    for shape in ((1, 6), (3, 9), (2, 40)):
        feeds = batch(*shape)
        close(answers(imported, feeds)["logits"], classifier(**feeds).logits)


def test_the_graph_is_the_one_that_integers_fit(imported: Model) -> None:
    kinds = Counter(node.op_type for node in imported.nodes())
    assert kinds["LayerNormalization"] == 3
    assert kinds["Gelu"] == 1
    assert kinds["MatMul"] == 8  # six with weights, two of attention
    assert not set(kinds) & {"GatherND", "Where", "Range", "Expand", "ReduceMean", "Erf", "Div"}
    (softmax,) = imported.nodes("Softmax")
    (scores,) = [softmax.inputs[0].producer()]  # type: ignore[union-attr]
    assert scores is not None
    assert scores.op_type == "Add"
    weights = imported.graph.graph.initializers
    assert "bert.encoder.layer.0.attention.self.query.bias" in weights
    assert any(n.name == "bert.encoder.layer.0.output.dense/MatMul" for n in imported.nodes())


def test_a_live_model_is_left_as_it_was_and_exported_in_float() -> None:
    model = text_model("DistilBertModel").to(torch.bfloat16).train()
    model.set_attn_implementation("sdpa")
    _, (states,) = face(import_model(model))
    assert (states.name, states.dtype) == ("last_hidden_state", "float32")
    assert next(model.parameters()).dtype == torch.bfloat16
    assert model.training
    assert model.config._attn_implementation == "sdpa"


def test_a_folder_is_exported_as_its_architecture_says(tmp_path: Path) -> None:
    model = text_model("RobertaForTokenClassification", type_vocab_size=1, num_labels=5)
    model.save_pretrained(tmp_path)
    found = import_model(tmp_path)
    inputs, outputs = face(found)
    assert [spec.name for spec in inputs] == ["input_ids", "attention_mask"]
    assert outputs[0].shape == ("batch", "tokens", 5)
    assert found.source == str(tmp_path)
    feeds = batch()
    feeds["input_ids"][-1, 5:] = model.config.pad_token_id
    feeds.pop("token_type_ids")
    close(answers(found, feeds)["logits"], model(**feeds).logits)


def test_a_sentence_encoder_pools_what_the_mask_leaves(tmp_path: Path) -> None:
    model = text_model("DistilBertModel")
    model.save_pretrained(tmp_path)
    save_pooling(tmp_path)
    found = import_model(str(tmp_path))
    _, (embedding,) = face(found)
    assert (embedding.name, embedding.shape) == ("sentence_embedding", ("batch", 32))
    feeds = batch()
    feeds.pop("token_type_ids")
    expected = pooled(model, feeds, lambda row: row.mean(0))
    expected = expected / expected.norm(dim=-1, keepdim=True)
    close(answers(found, feeds)["sentence_embedding"], expected)


@pytest.mark.parametrize(
    ("mode", "of_row"), [("max", lambda row: row.amax(0)), ("cls", lambda row: row[0])]
)
def test_other_poolings_leave_padding_out(mode: str, of_row: Any) -> None:
    from edgebm.importers.huggingface_encoder import EncoderExport

    model = text_model("DistilBertModel")
    feeds = batch()
    feeds.pop("token_type_ids")
    with torch.no_grad():
        export = EncoderExport(model, ("last_hidden_state",), Pooling(mode, normalize=False))
        (got,) = export.module()(**feeds)
        close(got.numpy(), pooled(model, feeds, of_row))


def pooled(model: Any, feeds: dict[str, Any], of_row: Any) -> Any:
    states, mask = model(**feeds).last_hidden_state, feeds["attention_mask"]
    rows = [row[: int(kept.sum())] for row, kept in zip(states, mask, strict=True)]
    return torch.stack([of_row(row) for row in rows])


def test_a_pytorch_file_of_tensors_is_read_and_one_with_code_is_refused(tmp_path: Path) -> None:
    model = text_model("DistilBertModel")
    model.config.architectures = ["DistilBertModel"]
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    found = import_model(tmp_path)
    feeds = {key: value for key, value in batch().items() if key != "token_type_ids"}
    close(answers(found, feeds)["last_hidden_state"], model(**feeds).last_hidden_state)

    torch.save({"a": Path()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot load") as caught:
        import_model(tmp_path)
    assert "more than tensors" in caught.value.hint


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    model = text_model("BertForSequenceClassification", num_hidden_layers=2)
    model.save_pretrained(tmp_path)
    config = (tmp_path / "config.json").read_text()

    def fault(old: str, new: str) -> str:
        assert old in config
        (tmp_path / "config.json").write_text(config.replace(old, new))
        with pytest.raises(ModelError) as caught:
            import_model(tmp_path)
        return str(caught.value)

    layers = '"num_hidden_layers": '
    assert "no values for bert.encoder.layer.2" in fault(f"{layers}2", f"{layers}3")
    assert "no place for bert.encoder.layer.1" in fault(f"{layers}2", f"{layers}1")
    inner = fault('"intermediate_size": 64', '"intermediate_size": 48')
    assert "do not fit its config.json" in inner or "cannot load" in inner
    head = fault("BertForSequenceClassification", "BertForQuestionAnswering")
    assert "no values for qa_outputs" in head


def test_a_damaged_file_of_weights_is_refused(tmp_path: Path) -> None:
    text_model("DistilBertModel").save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="cannot load"):
        import_model(tmp_path)


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("BertForMultipleChoice", r"BertForMultipleChoice is not handled"),
        ("RobertaModel", r"knows no bert model of the architecture RobertaModel"),
        ("NoSuchModel", r"does not know the architecture NoSuchModel"),
    ],
)
def test_other_architectures_are_named(tmp_path: Path, architecture: str, words: str) -> None:
    text_model("BertForMultipleChoice").save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace("BertForMultipleChoice", architecture))
    with pytest.raises(UnsupportedModel, match=words) as caught:
        import_model(tmp_path)
    assert "file.py:function" in caught.value.hint


def test_a_class_of_the_users_own_needs_example_inputs() -> None:
    import transformers

    class Mine(transformers.DistilBertModel):  # type: ignore[misc,name-defined]
        pass

    with pytest.raises(UnsupportedModel, match="Mine is a class of your own"):
        import_model(Mine(text_model("DistilBertModel").config))


def test_a_model_of_pictures_is_named() -> None:
    import transformers

    config = transformers.ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
                                    intermediate_size=64, image_size=32)  # fmt: skip
    with pytest.raises(UnsupportedModel, match="reads pixel_values"):
        import_model(transformers.ViTForImageClassification(config))


def test_a_model_of_one_part_has_no_other(classifier: Any) -> None:
    with pytest.raises(ModelError, match="has no part 'encoder'"):
        import_model((classifier, "encoder"))
