"""`examples/translate`: its search, and its whole path in short, on a toy and a real language."""

from __future__ import annotations

import gzip
import importlib
import itertools
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from example_calls import EXAMPLES, WITHOUT_HOST, call, edgebm_command, python

import edgebm

pytest.importorskip("tokenizers", reason="tokenizers is not installed")
EXAMPLE = EXAMPLES / "translate"
DATA = os.environ.get("EDGEBM_DATA")
HAS_DATA = bool(DATA) and (Path(str(DATA)) / "multi30k_en_de" / "train.de.gz").is_file()
GERMAN = ("null", "eins", "zwei", "drei", "vier", "fünf")
ENGLISH = ("zero", "one", "two", "three", "four", "five")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports modules of the example, and forgets them again: their names are common ones."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    names = [path.stem for path in EXAMPLE.glob("*.py")]
    held = {name: sys.modules.pop(name) for name in names if name in sys.modules}

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(held)


class Babble:
    """A decoder whose scores depend on all that a hypothesis has written, and on nothing else."""

    def __init__(self, seed: int, words: int = 6) -> None:
        self.seed, self.words = seed, words
        self.rows: list[list[int]] = []

    def __call__(self, tokens: Any, position: int, parents: Any) -> Any:
        before = self.rows if position else [[]] * len(tokens)
        self.rows = [[*before[p], int(t)] for p, t in zip(parents, tokens, strict=True)]
        return np.stack([self.scores(row) for row in self.rows])

    def scores(self, row: list[int]) -> Any:
        made = np.random.default_rng([self.seed, *row]).normal(size=self.words)
        return (2 * made).astype(np.float32)

    def log_probability(self, ids: list[int]) -> float:
        total, row = 0.0, [1]
        for token in [*ids, 2]:
            scores = self.scores(row).astype(np.float64)
            total += scores[token] - np.log(np.exp(scores).sum())
            row.append(token)
        return total


@pytest.mark.parametrize("seed", range(8))
def test_a_beam_of_one_is_greedy(example: Any, seed: int) -> None:
    search = example("search")
    one, other = search.greedy(Babble(seed), 12), search.beam(Babble(seed), 12, 1)
    assert one.ids == other.ids
    assert one.ended == other.ended
    assert other.score == pytest.approx(one.score, rel=1e-5)
    if one.ended:
        assert one.log_probability == pytest.approx(
            Babble(seed).log_probability(one.ids), rel=1e-5
        )


@pytest.mark.parametrize("seed", range(8))
def test_a_beam_as_wide_as_all_there_is_finds_the_best(example: Any, seed: int) -> None:
    search, limit = example("search"), 4
    words = [0, 1, 3, 4, 5]  # 2 is the end
    scores = {
        ids: Babble(seed).log_probability(list(ids)) / search.penalty(len(ids) + 1, 0.6)
        for length in range(limit)
        for ids in itertools.product(words, repeat=length)
    }
    best = max(scores, key=scores.__getitem__)
    found = search.beam(Babble(seed), limit, 6**limit)
    assert tuple(found.ids) == best
    assert found.score == pytest.approx(scores[best], rel=1e-5)
    greedy = search.greedy(Babble(seed), limit)
    assert not greedy.ended or found.score >= greedy.score - 1e-6


def toy(folder: Path) -> Path:
    """A data set of a language whose sentences are numbers, and whose translation is reversed."""
    made, where = random.Random(0), folder / "multi30k_en_de"
    where.mkdir(parents=True)
    for part, count in (("train", 800), ("val", 110), ("test_2016_flickr", 12)):
        rows = [[made.randrange(6) for _ in range(made.randint(1, 4))] for _ in range(count)]
        for end, words, order in (("de", GERMAN, 1), ("en", ENGLISH, -1)):
            lines = [" ".join(words[k] for k in row[::order]) + "\n" for row in rows]
            with gzip.open(where / f"{part}.{end}.gz", "wt", encoding="utf-8") as file:
                file.writelines(lines)
    return folder


def made(folder: Path, data: Path, recipe: str, *options: object) -> Path:
    """What train.py and compress.sh write, in short."""
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript, with which torch exports, is missing")
    edgebm_command(folder)
    python(folder, EXAMPLE / "train.py", "--data", data, "--out", folder, *options)
    short = ("--measure-seconds", 0.3)
    done = call(folder, "sh", EXAMPLE / "compress.sh", folder, *short, RECIPES=recipe)
    assert done.returncode == 0, done.stderr
    return folder


def device(folder: Path, *options: object) -> Any:
    """The device's program, which cannot import torch or anything else of the host."""
    program = (sys.executable, "-c", WITHOUT_HOST, EXAMPLE / "device.py", folder)
    return call(folder, *program, *options)


def written_by_torch(example: Any, folder: Path, ids: list[int]) -> list[int]:
    """Greedy over the whole sequence at every step: no cache, no stream, no ONNX."""
    torch, train = importlib.import_module("torch"), example("train")
    net = train.Transformer(
        train.sizes_of(train.Tokenizer.from_file(str(folder / "tokenizer.json")), 64)
    )
    train.load_weights(net, folder / "weights.npz")
    source, row = torch.tensor([ids]), [1]
    with torch.inference_mode():
        while row[-1] != 2 and len(row) <= net.sizes.window:
            states = net.eval()(source, torch.ones_like(source), torch.tensor([row]))
            row.append(int(net.scores(states[:, -1]).argmax()))
    return row[1:-1]


def test_a_stream_writes_what_torch_writes_and_a_beam_scores_no_less(
    example: Any, tmp_path: Path
) -> None:
    data = toy(tmp_path / "data")
    folder = made(
        tmp_path / "toy", data, "fp32", "--width", 64, "--vocabulary", 60, "--epochs", 24
    )
    translator, text = example("translator"), example("text").Text(folder / "tokenizer.json")
    sentences = example("corpus").read(data, "test_2016_flickr").german
    with (
        edgebm.load(folder / "encoder-fp32.edgebm", threads=1) as encoder,
        edgebm.load(folder / "decoder-fp32.edgebm", threads=1) as decoder,
    ):
        found: dict[int, list[Any]] = {}
        for rows in (1, 4):
            with decoder.stream() as stream:
                turn = translator.Translator(encoder, stream, text, rows)
                found[rows] = [turn(sentence).found for sentence in sentences]
                assert turn.times.tokens == sum(len(f.ids) + f.ended for f in found[rows])
    for sentence, greedy in zip(sentences, found[1], strict=True):
        assert greedy.ids == written_by_torch(example, folder, text.read(sentence, 48).ids)
    # A beam may lose what greedy finds, of a single sentence; not of a dozen together.
    assert sum(f.score for f in found[4]) >= sum(f.score for f in found[1]) - 1e-3

    told = device(folder, "--precision", "fp32", "--text", sentences[0])
    assert told.stdout == text.written(found[1][0].ids) + "\n"
    (folder / "tokenizer.json").rename(folder / "away.json")
    refused(folder, "fp32", "tokenizer.json cannot be read: No such file")
    (folder / "away.json").rename(folder / "tokenizer.json")
    of_another_model(folder)
    refused(folder, "fp32", "encoder and decoder are of different models")


def refused(folder: Path, precision: str, why: str) -> None:
    told = device(folder, "--precision", precision, "--text", "eins")
    assert (told.returncode, told.stdout) == (2, "")
    assert why in told.stderr
    assert "Traceback" not in told.stderr


def of_another_model(folder: Path) -> None:
    """In the place of the encoder one of the same sizes that says it is of other weights."""
    import onnx

    model = onnx.load(folder / "encoder.onnx")
    (words,) = (x for x in model.graph.initializer if x.name == "identity")
    changed = onnx.numpy_helper.to_array(words) ^ np.int64([1, 0, 0, 0])
    words.CopyFrom(onnx.numpy_helper.from_array(changed, words.name))
    onnx.save(model, folder / "other.onnx")
    short = ("-d", folder / "encoder.npz", "--threads", 1, "--measure-seconds", 0.3)
    bundle = ("-r", "fp32", "-o", folder / "encoder-fp32.edgebm", "--force")
    python(folder, "-m", "edgebm", "compress", folder / "other.onnx", *short, *bundle)


@pytest.mark.skipif(not HAS_DATA, reason="EDGEBM_DATA names no folder with multi30k_en_de/")
def test_german_goes_in_and_what_does_not_fit_is_told(tmp_path: Path) -> None:
    quick = ("--width", 32, "--vocabulary", 300, "--epochs", 1)
    folder = made(tmp_path / "translate", Path(str(DATA)), "int8", *quick, "--pairs", 400)
    lines = ["Ein Hund läuft.", "", "Ein 語 steht.", "Zwei Männer stehen " * 30]
    (tmp_path / "in.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    shell = f"'{sys.executable}' '{EXAMPLE}/device.py' '{folder}' --beam 4 --stats < in.txt"
    done = call(folder, "sh", "-c", f"cd '{tmp_path}' && {shell}")
    assert done.returncode == 0, done.stderr
    translated = done.stdout.split("\n")
    assert len(translated) == len(lines) + 1
    assert (translated[1], translated[4]) == ("", "")
    assert "line 3: the model has never seen '語'" in done.stderr
    assert "line 4: " in done.stderr
    assert "it is cut to 47" in done.stderr
    assert "3 sentences" in done.stderr
    (tmp_path / "in.txt").write_bytes(b"Ein Hund\nEin M\xe4dchen\n")
    odd = call(folder, "sh", "-c", f"cd '{tmp_path}' && {shell}")
    assert (odd.returncode, odd.stdout.count("\n")) == (2, 1)
    assert "line 2 is not UTF-8 (byte 5)" in odd.stderr

    judged = tmp_path / "judged.json"
    python(
        folder, EXAMPLE / "judge.py", folder, "--data", DATA, "--limit", 3, "--bundles", "int8",
        "--json", judged,
    )  # fmt: skip
    assert '"sentences": 3' in judged.read_text()

    with (folder / "tokenizer.json").open("a") as file:
        file.write("\n")  # the same tokenizer, and not the same file
    refused(folder, "int8", "tokenizer.json is not the one that the model was trained with")
