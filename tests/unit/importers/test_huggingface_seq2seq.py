from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from text_models import text_model

from edgebm.errors import ModelError, UnsupportedModel
from edgebm.exec.collect import float_run
from edgebm.importers import import_model
from edgebm.ir.face import face
from edgebm.ir.states import find_states, growing_axes

torch = pytest.importorskip("torch")
pytest.importorskip("transformers", reason="needs the extra huggingface")


def source() -> dict[str, Any]:
    ids = torch.tensor([[5, 9, 30, 44, 7, 2], [8, 41, 2, 1, 1, 1]])
    return {"input_ids": ids, "attention_mask": (ids != 1).long()}


@pytest.mark.parametrize("architecture", ["MarianMTModel", "T5ForConditionalGeneration"])
def test_encoder_and_steps_together_write_what_the_model_writes(
    tmp_path: Path, architecture: str
) -> None:
    model = text_model(architecture, pad_token_id=1)
    model.save_pretrained(tmp_path)
    encoder, decoder = (import_model(f"{tmp_path}#{part}") for part in ("encoder", "decoder"))
    feeds = {key: value.numpy() for key, value in source().items()}
    read = float_run(encoder)(feeds)
    states = find_states(decoder)
    inputs, outputs = face(decoder)
    names = [spec.name for spec in inputs]
    assert names[:4] == ["input_ids", "encoder_attention_mask", "cross.0.key", "cross.0.value"]
    assert outputs[0].shape == ("batch", 1, 60)
    assert [(p.input, p.output) for p in states] == [
        (f"past.{layer}.{kind}", f"present.{layer}.{kind}")
        for layer in (0, 1)
        for kind in ("key", "value")
    ]
    assert growing_axes(inputs, [p.input for p in states]) == {"past"}

    written = np.random.default_rng(0).integers(3, 60, (2, 5))
    with torch.no_grad():
        expected = model(**source(), decoder_input_ids=torch.from_numpy(written)).logits.numpy()
    run = float_run(decoder)
    fixed = {key: value for key, value in read.items() if key in names}
    now = {pair.input: np.zeros((2, 4, 0, 8), np.float32) for pair in states}
    for step in range(5):
        got = run(
            {
                "input_ids": written[:, step : step + 1],
                "encoder_attention_mask": feeds["attention_mask"],
                **fixed,
                **now,
            }
        )
        np.testing.assert_allclose(got["logits"][:, 0], expected[:, step], rtol=1e-3, atol=1e-3)
        now = {pair.input: got[pair.output] for pair in states}


def test_the_part_has_to_be_said(tmp_path: Path) -> None:
    model = text_model("BartForConditionalGeneration")
    with pytest.raises(ModelError, match="become a bundle each") as caught:
        import_model(model)
    assert '(model, "encoder")' in caught.value.hint
    model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="become a bundle each") as caught:
        import_model(tmp_path)
    assert f"{tmp_path}#decoder" in caught.value.hint
    with pytest.raises(ModelError, match="has no part 'head'"):
        import_model(f"{tmp_path}#head")


def test_a_decoder_without_scores_is_named() -> None:
    with pytest.raises(UnsupportedModel, match="BartModel is not handled"):
        import_model((text_model("BartModel"), "decoder"))
