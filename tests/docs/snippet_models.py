"""Small models and samples under the names that the pages use."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from graphs import parse, random_model

import edgebm
from edgebm.demo import demo_files
from edgebm.ir.model import Model
from edgebm.runtime import cpu

BANDS, UNITS, WORDS = 6, 16, 4
# So many that weights are all there is: then runtimes' float files differ by two hundredths.
FEATURES = 1024


def digits(folder: Path) -> None:
    """model.onnx, which tells the demo's digits apart, and samples of them."""
    _write_digits(folder, classes=10)


def zeros(folder: Path) -> None:
    """The same for two classes: 1 is a zero, 0 any other digit."""
    _write_digits(folder, classes=2)


def _write_digits(folder: Path, classes: int) -> None:
    """Random features and a matrix that ridge regression fits to the labels."""
    given = demo_files()
    for name in ("train.npz", "samples.npz", "unlabelled.npz"):
        (folder / name).write_bytes(given["calibration.npz"])
    with np.load(io.BytesIO(given["test.npz"])) as test:
        images, labels = test["image"], test["labels"]
    if classes == 2:
        labels = (labels == 0).astype(np.int64)
    np.savez(folder / "test.npz", image=images, labels=labels)
    rng = np.random.default_rng(0)
    w1 = (rng.normal(size=(64, FEATURES)) / 64).astype(np.float32)
    b1 = rng.normal(size=FEATURES).astype(np.float32)
    seen = np.maximum(images.reshape(-1, 64) @ w1 + b1, 0)
    w2 = np.linalg.solve(seen.T @ seen + np.eye(FEATURES), seen.T @ np.eye(classes)[labels])
    graph = parse(
        f"""g (float[batch,1,8,8] image) => (float[batch,{classes}] scores) {{
          flat = Flatten(image)
          [features] a = Gemm(flat, w1, b1)
          seen = Relu(a)
          [head] scores = MatMul(seen, w2)
        }}""",
        w1=w1, b1=b1, w2=w2.astype(np.float32),
    )  # fmt: skip
    (folder / "model.onnx").write_bytes(graph.to_bytes())


def wide(folder: Path) -> None:
    """A perceptron that is so wide that half of it is measured faster."""
    graph = random_model(
        """g (float[1,512] x) => (float[1,10] scores) {
          a = Gemm(x, w1, b1)
          r = Relu(a)
          b = Gemm(r, w2, b2)
          s = Relu(b)
          scores = MatMul(s, w3)
        }""",
        w1=(512, 1024), b1=(1024,), w2=(1024, 1024), b2=(1024,), w3=(1024, 10),
    )  # fmt: skip
    for name in ("model.onnx", "taught.onnx"):
        (folder / name).write_bytes(graph.to_bytes())
    x = np.random.default_rng(0).normal(size=(64, 512)).astype(np.float32)
    np.savez(folder / "samples.npz", x=x)


def sequences(folder: Path, model: str, *samples: str) -> None:
    """An LSTM over frames [1, time, 6] with scores at its end, and labelled and plain clips."""
    graph = random_model(
        f"""g (float[batch,time,{BANDS}] frames) => (float[batch,{WORDS}] scores) {{
          zero = Constant<value_ints=[0]>()
          turned = Transpose<perm=[1,0,2]>(frames)
          states, last, memory = LSTM<hidden_size={UNITS}>(turned, w, r, b)
          end = Squeeze(last, zero)
          scores = MatMul(end, head)
        }}""",
        w=(1, 4 * UNITS, BANDS), r=(1, 4 * UNITS, UNITS), b=(1, 8 * UNITS), head=(UNITS, WORDS),
    )  # fmt: skip
    (folder / model).write_bytes(graph.to_bytes())
    rng = np.random.default_rng(0)
    for name in samples:
        clips = rng.normal(size=(40, 12, BANDS)).astype(np.float32)
        labels = {"labels": rng.integers(0, WORDS, 40)} if name == "test.npz" else {}
        np.savez(folder / name, frames=clips, **labels)


def lanes() -> Model:
    """Camera pictures [1, 3, 24, 24] to `lanes`."""
    return random_model(
        """g (float[1,3,24,24] image) => (float[1,4] lanes) {
          c = Conv<strides=[2,2]>(image, w, b)
          r = Relu(c)
          p = GlobalAveragePool(r)
          f = Flatten(p)
          lanes = MatMul(f, head)
        }""",
        w=(8, 3, 3, 3), b=(8,), head=(8, 4),
    )  # fmt: skip


def camera() -> Model:
    """Pictures [1, 3, 224, 224], normalized, to scores."""
    return random_model(
        """g (float[1,3,224,224] image) => (float[1,4] scores) {
          c = Conv<strides=[8,8]>(image, w, b)
          r = Relu(c)
          p = GlobalAveragePool(r)
          f = Flatten(p)
          scores = MatMul(f, head)
        }""",
        w=(8, 3, 3, 3), b=(8,), head=(8, 4),
    )  # fmt: skip


def tokens() -> Model:
    """A model of two inputs, ids and a mask."""
    return random_model(
        """g (int64[1,8] ids, int64[1,8] mask) => (float[1,8,8] states) {
          e = Gather(table, ids)
          m = Cast<to=1>(mask)
          axis = Constant<value_ints=[2]>()
          wide = Unsqueeze(m, axis)
          seen = Mul(e, wide)
          states = MatMul(seen, w)
        }""",
        table=(50, 8), w=(8, 8),
    )  # fmt: skip


def bundle(model: Any, path: Path, runtimes: Sequence[str] = ("openvino",), **more: Any) -> None:
    """A float bundle with a variant for each runtime, for processors like this one."""
    boards = []
    for runtime in runtimes:
        board = path.parent / f".{runtime}.yaml"
        board.write_text(
            f"name: {runtime}\ndescription: like this machine\narch: {cpu.arch()}\n"
            f"runtimes: [{runtime}]\nprecisions: [f32]\n"
        )
        boards.append(board)
    edgebm.compress(model, target=boards, out=path, **({"recipe": "fp32"} | more))


def reviews(folder: Path) -> None:
    """A folder as transformers saves it, its tokenizer, and texts with labels."""
    from text_models import WORDS as VOCABULARY
    from text_models import save_tokenizer, text_model

    model = text_model("BertForSequenceClassification", max_position_embeddings=128)
    model.save_pretrained(folder / "reviews")
    save_tokenizer(folder / "reviews")
    rng = np.random.default_rng(0)
    for name in ("train.jsonl", "test.jsonl"):
        rows = [
            {"text": " ".join(rng.choice(VOCABULARY[4:], size=6)), "label": int(label)}
            for label in rng.integers(0, 2, 40)
        ]
        (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def translator(folder: Path) -> None:
    """A folder with an encoder and a decoder, sentences, and steps of the decoder."""
    import torch
    from text_models import WORDS as VOCABULARY
    from text_models import save_tokenizer, text_model

    model = text_model("T5ForConditionalGeneration", num_layers=1)
    model.save_pretrained(folder / "t5")
    save_tokenizer(folder / "t5")
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(VOCABULARY[4:], size=6)) for _ in range(24)]
    (folder / "sentences.txt").write_text("\n".join(texts))
    ids = torch.tensor([[5, 9, 30, 44, 1]])
    mask = torch.ones_like(ids)
    written = rng.integers(3, 60, (12, 6, 1, 1))
    with torch.no_grad():
        told = model(
            input_ids=ids, attention_mask=mask, use_cache=True,
            decoder_input_ids=torch.from_numpy(written[0, :, :, 0].T),
        )  # fmt: skip
    held = told["past_key_values"].cross_attention_cache.layers
    fixed = {
        f"cross.{layer}.{kind}": getattr(cache, f"{kind}s").numpy()
        for layer, cache in enumerate(held)
        for kind in ("key", "value")
    } | {"encoder_attention_mask": mask.numpy()}
    steps = {name: np.broadcast_to(each, (12, 6, *each.shape)) for name, each in fixed.items()}
    np.savez(folder / "steps.npz", input_ids=written, **steps)
