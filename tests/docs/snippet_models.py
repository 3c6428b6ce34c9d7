"""Small models and samples under the names that the pages use."""

from __future__ import annotations

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


def digits(folder: Path) -> None:
    """The demo's CNN as model.onnx, its samples as train.npz and test.npz, and as other names."""
    given = demo_files()
    (folder / "model.onnx").write_bytes(given["digits_cnn.onnx"])
    for name in ("train.npz", "samples.npz", "unlabelled.npz"):
        (folder / name).write_bytes(given["calibration.npz"])
    (folder / "test.npz").write_bytes(given["test.npz"])


def two_classes(folder: Path) -> None:
    """Digits from 5 on are told from the others: two scores, labels 0 and 1."""
    digits(folder)
    model = edgebm.as_module(folder / "model.onnx").to_model()
    join = parse(
        """g (float[N,10] all) => (float[N,2] scores) {
          axes = Constant<value_ints=[1]>()
          zero = Constant<value_ints=[0]>()
          five = Constant<value_ints=[5]>()
          ten = Constant<value_ints=[10]>()
          low = Slice(all, zero, five, axes)
          high = Slice(all, five, ten, axes)
          a = ReduceMax(low, axes)
          b = ReduceMax(high, axes)
          scores = Concat<axis=1>(a, b)
        }"""
    )
    import onnx
    import onnx.compose

    first = onnx.load_from_string(model.to_bytes())
    second = onnx.load_from_string(join.to_bytes())
    onnx.compose.add_prefix(second, "two_", inplace=True)
    merged = onnx.compose.merge_models(first, second, io_map=[("scores", "two_all")])
    for node in merged.graph.node:
        node.output[:] = ["scores2" if o == "two_scores" else o for o in node.output]
    merged.graph.output[0].name = "scores2"
    onnx.save(merged, folder / "model.onnx")
    with np.load(folder / "test.npz") as test:
        np.savez(folder / "test.npz", image=test["image"], labels=(test["labels"] >= 5) * 1)


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
    from text_models import save_tokenizer, text_model

    model = text_model("T5ForConditionalGeneration")
    model.save_pretrained(folder / "t5")
    save_tokenizer(folder / "t5")
    (folder / "sentences.txt").write_text("a very dull film\nnot a bad film\n" * 12)
    ids = torch.tensor([[5, 9, 30, 44, 1]])
    mask = torch.ones_like(ids)
    written = np.random.default_rng(0).integers(3, 60, (12, 6, 1, 1))
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
