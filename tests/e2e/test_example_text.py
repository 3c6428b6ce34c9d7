"""`examples/text_classify`: what its device program refuses, and its whole path in short."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bag_of_words import save_bundle
from example_calls import EXAMPLES, ROOT, WITHOUT_HOST, call, edgebm_command, python

pytest.importorskip("tokenizers", reason="needs the extra huggingface")
EXAMPLE = EXAMPLES / "text_classify"
DATA = os.environ.get("EDGEBM_DATA")
TEXTS = ["good film", "not a very bad dull film", "film", "very dull", "bad " * 100]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bundle(tmp_path_factory.mktemp("words"), "logits", 2)


def device(*command: object, code: int = 0, fed: bytes = b"") -> tuple[list[str], str]:
    """The lines that device.py prints, and what it says to stderr, with the host half blocked."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_HOST, str(EXAMPLE / "device.py"), *map(str, command)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        input=fed,
        capture_output=True,
        check=False,
    )
    told = done.stderr.decode()
    assert done.returncode == code, told
    assert "Traceback" not in told
    return done.stdout.decode().splitlines(), told


def test_what_both_text_examples_use_is_one_file() -> None:
    for name in ("base.py", "texts.py"):
        shared = (EXAMPLE / name).resolve()
        assert shared == (EXAMPLES / "sentence_search" / name).resolve(strict=True)


def test_lines_files_and_batches_give_the_same_answers(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "reviews.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    shown, told = device(bundle, path)
    assert [line.split("\t")[2] for line in shown] == [text.strip() for text in TEXTS]
    assert all(line.split("\t")[0] in ("negative", "positive") for line in shown)
    assert all(0.5 <= float(line.split("\t")[1]) <= 1 for line in shown)
    assert "reviews.txt, line 5: cut off, too long" in told
    assert "5 texts, 1 of them cut off" in told
    assert "1x16 tokens: 4 calls" in told
    assert "1x64 tokens: 1 calls" in told
    assert device(bundle, fed=path.read_bytes())[0] == shown
    batched, told = device(bundle, path, "--batch", 2)
    assert batched == shown
    assert "2x16 tokens: 2 calls" in told


def test_labels_are_counted(bundle: Path, tmp_path: Path) -> None:
    plain, path = tmp_path / "reviews.txt", tmp_path / "reviews.jsonl"
    plain.write_text("\n".join(TEXTS) + "\n")
    answers = [int(line.startswith("positive")) for line in device(bundle, plain)[0]]
    labels = [*answers[:-1], 1 - answers[-1]]
    rows = [{"text": text, "label": n} for text, n in zip(TEXTS, labels, strict=True)]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert "4 of 5 as labelled (80.00 %)" in device(bundle, path)[1]


def test_what_cannot_be_read_is_said(bundle: Path, tmp_path: Path) -> None:
    shown, told = device(bundle, fed=b"good film\n\xff\xfe\n\nbad film\n")
    assert len(shown) == 2
    assert "stdin, line 2: left out, no UTF-8" in told
    assert "1 lines left out that are no UTF-8, 1 blank" in told
    assert "stdin holds no text" in device(bundle, code=2)[1]
    empty, form = tmp_path / "empty.txt", tmp_path / "form.jsonl"
    empty.write_text("\n")
    form.write_text('{"text": "good"}\n{"review": "good"}\n')
    assert "empty.txt holds no text" in device(bundle, empty, code=2)[1]
    assert "form.jsonl, line 2 is no JSON object with a text" in device(bundle, form, code=2)[1]
    assert "cannot be read" in device(bundle, tmp_path / "none.txt", code=2)[1]


def test_a_bundle_with_other_outputs_is_refused(tmp_path: Path) -> None:
    other = save_bundle(tmp_path)
    told = device(other, fed=b"film\n", code=2)[1]
    assert "gives sentence_embedding: float32[batch, 8], and 2 scores are needed" in told


def test_training_refuses_folders_without_data_or_weights(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="needs the extra huggingface")
    train = (sys.executable, EXAMPLE / "train.py", "--data", tmp_path)
    done = call(tmp_path, *train)
    assert done.returncode == 2, done.stderr
    assert "sst2_train.tsv.gz" in done.stderr


@pytest.mark.skipif(
    not DATA or not (Path(DATA) / "sst2" / "sst2_train.tsv.gz").is_file(),
    reason="EDGEBM_DATA names no folder with sst2/sst2_train.tsv.gz",
)
def test_from_reviews_to_verdicts(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("transformers", reason="needs the extra huggingface")
    folder = tmp_path / "sst2"
    edgebm_command(folder)
    train = ("--out", folder, "--sentences", 200, "--epochs", 3, "--rate", 1e-3, "--threads", 1)
    assert "% of 200 sentences" in python(folder, EXAMPLE / "train.py", *train)
    short = ("--measure-seconds", 0.5, "--subset-size", 32, "--max-drop", 100)
    done = call(folder, "sh", EXAMPLE / "compress.sh", folder, *short, RECIPES="int8")
    assert done.returncode == 0, done.stderr
    bundle = folder / "int8.edgebm"
    told = device(bundle, folder / "test.jsonl")[1]
    right, count = told.split("; ")[1].split(" as labelled")[0].split(" of ")
    figures = EXAMPLES / "medical_ecg" / "figures.py"
    table = python(folder, figures, bundle, bundle, folder / "test.npz")
    # Longer buckets round a little otherwise: one text may lie on the edge.
    counted = int(table.split("| accuracy | ")[1].split(" of ")[0].rpartition(", ")[2])
    assert int(count) == 200
    assert abs(counted - int(right)) <= 2
    assert "0 lost, 0 won, McNemar p = 1 |" in table
    latency = EXAMPLES / "sentence_search" / "latency.py"
    timed = python(folder, latency, bundle, bundle, folder / "test.jsonl")
    assert timed.splitlines()[0] == "| | int8.edgebm | int8.edgebm |"
    assert "| p50 of a text, 32 tokens | " in timed
