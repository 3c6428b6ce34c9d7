"""`examples/sentence_search`: its parts without data, and its whole path in a short form."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from bag_of_words import WIDTH, save_bundle
from example_calls import EXAMPLES, ROOT, WITHOUT_HOST, call, edgebm_command, python

import edgebm
from edgebm.errors import DataError, ModelError

pytest.importorskip("tokenizers", reason="needs the extra huggingface")
EXAMPLE = EXAMPLES / "sentence_search"
DATA = os.environ.get("EDGEBM_DATA")
LINES = b"good film\n\nnot a very bad dull film\n\xff\xfe\nfilm\nvery very very good\n"


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


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bundle(tmp_path_factory.mktemp("words"))


def device(*command: object, code: int = 0, fed: bytes = b"") -> tuple[str, str]:
    """What device.py prints to stdout and stderr, with the host half blocked."""
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
    return done.stdout.decode(), told


@pytest.mark.parametrize("batch", [1, 2])
def test_each_text_is_read_in_the_shortest_bucket_that_holds_it(
    example: Any, bundle: Path, batch: int
) -> None:
    texts = ["good", "very " * 9, "film", "bad film", "a " * 6]  # two marks more
    with edgebm.load(bundle) as session:
        model = example("texts").TextModel(
            session, bundle.with_name("tokenizer.json"), (8, 4), batch
        )
        rows, cut = model.run(texts)
        alone = [model.run([text])[0][0] for text in texts]
    assert rows.shape == (5, WIDTH)
    assert cut.tolist() == [False, True, False, False, False]
    np.testing.assert_allclose(rows, alone, rtol=1e-5)
    calls = {shape: len(times) for shape, times in model.tally.calls_ms.items()}
    singles = {(1, 4): 3, (1, 8): 2}  # what `alone` called
    whole = {(2, 4): 1, (2, 8): 1, (1, 4): 1} if batch == 2 else singles
    assert calls == {shape: whole.get(shape, 0) + singles.get(shape, 0) for shape in calls}
    assert calls.keys() == whole.keys() | singles.keys()
    assert model.tally.cut == 2


def test_what_is_cut_off_changes_nothing_in_front_of_it(example: Any, bundle: Path) -> None:
    with edgebm.load(bundle) as session:
        model = example("texts").TextModel(session, bundle.with_name("tokenizer.json"), (4,))
        rows, cut = model.run(["good film", "good film bad bad"])
    assert cut.tolist() == [False, True]
    np.testing.assert_array_equal(rows[0], rows[1])


def test_lines_that_are_blank_or_no_utf8_are_left_out_and_counted(
    example: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = example("texts").Lines("a.txt")
    found = list(lines.read(LINES.splitlines(keepends=True)))
    assert [number for number, _ in found] == [1, 3, 5, 6]
    assert (lines.damaged, lines.blank) == (1, 1)
    assert capsys.readouterr().err.startswith("a.txt, line 4: left out, no UTF-8")


def test_an_index_comes_back_and_is_bound_to_its_bundle(example: Any, tmp_path: Path) -> None:
    index = example("index")
    vectors = index.unit(np.array([[1, 0], [0, 2], [1, 1]], np.float32))
    texts, path = ["right", "üp", "both"], tmp_path / "i.npz"
    index.Index(vectors, texts, np.array([1, 3, 4]), ("a" * 64, "b" * 64)).save(path)
    assert [each.name for each in tmp_path.iterdir()] == ["i.npz"]
    held = index.load_index(path, ("a" * 64, "b" * 64))
    found = held.nearest(np.array([0, 5], np.float32), 2)
    assert [(number, text) for _, number, text in found] == [(3, "üp"), (4, "both")]
    assert found[0][0] == pytest.approx(1)
    assert found[1][0] == pytest.approx(0.5**0.5)
    for what, now in (("bundle", ("c" * 64, "b" * 64)), ("tokenizer", ("a" * 64, "c" * 64))):
        with pytest.raises(DataError, match=f"another {what}: sha256"):
            index.load_index(path, now)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="no readable index"):
        index.load_index(path, ("a" * 64, "b" * 64))


def test_device_builds_an_index_and_answers(bundle: Path, tmp_path: Path) -> None:
    sentences, index = tmp_path / "sentences.txt", tmp_path / "index.npz"
    sentences.write_bytes(LINES + b"dull " * 100 + b"\n")
    start = (bundle, "--index", index)
    told = device(*start, "--build", sentences, "--batch", 2)[1]
    assert "sentences.txt, line 7: cut off, too long" in told
    assert "5 sentences in" in told
    assert "1 lines left out that are no UTF-8, 1 blank" in told
    assert "1 of them cut off" in told
    shown = device(*start, "-k", 1, fed=b"film\n\xff\nnot a very bad dull film\n")[0]
    assert shown.splitlines()[::2] == ["film", "not a very bad dull film"]
    assert shown.splitlines()[1].split() == ["1.000", "line", "5", "film"]
    assert "line      3" in shown.splitlines()[3]
    both = device(*start, "-k", 9, "--query", "film", "--query", "good film")[0].splitlines()
    assert (len(both), both[6]) == (12, "good film")


def test_what_device_cannot_use_is_said(bundle: Path, tmp_path: Path) -> None:
    lost = tmp_path / "lost.npz"
    start = (bundle, "--index", lost)
    assert "there is no index" in device(*start, "--query", "film", code=2)[1]
    empty, garbled = tmp_path / "empty.txt", tmp_path / "garbled.txt"
    empty.write_bytes(b"\n \n")
    garbled.write_bytes(b"\xff\n")
    assert "holds no text: 0 lines" in device(*start, "--build", empty, code=2)[1]
    assert "holds no text: 1 lines" in device(*start, "--build", garbled, code=2)[1]
    assert "cannot be read" in device(*start, "--build", tmp_path / "none.txt", code=2)[1]
    no_tokenizer = (*start, "--tokenizer", tmp_path / "none.json", "--query", "film")
    assert "there is no tokenizer" in device(*no_tokenizer, code=2)[1]
    empty.with_suffix(".json").write_text("{}")
    damaged = (*start, "--tokenizer", empty.with_suffix(".json"), "--query", "film")
    assert "no readable tokenizer" in device(*damaged, code=2)[1]
    assert not lost.exists()


def test_a_bundle_that_reads_no_texts_is_refused(bundle: Path, tmp_path: Path) -> None:
    from tiny_models import QUICK, X, small

    other = tmp_path / "small.edgebm"
    edgebm.compress(small(), data=X, recipe="fp32", out=other, **QUICK)
    tokenizer = ("--tokenizer", bundle.with_name("tokenizer.json"))
    told = device(other, "--index", tmp_path / "i.npz", "--query", "film", *tokenizer, code=2)[1]
    assert "takes x: float32[1, 8]" in told


def test_texts_to_time_are_read_from_lines_and_records(example: Any, tmp_path: Path) -> None:
    latency, plain, records = example("latency"), tmp_path / "a.txt", tmp_path / "a.jsonl"
    plain.write_text("one\n\ntwo\n")
    records.write_text('{"text": "one", "text_pair": "two"}\n{"text": "three"}\n')
    assert latency.texts_of(plain) == ["one", "two"]
    assert latency.texts_of(records) == ["one", "two", "three"]
    records.write_text('{"text": "one"}\n{"label": 1}\n')
    with pytest.raises(DataError, match="line 2 is no JSON object with a text"):
        latency.texts_of(records)


def test_a_folder_that_is_no_encoder_is_refused(example: Any, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="needs the extra huggingface")
    base = example("base")
    with pytest.raises(ModelError, match=r"no config.json, no tokenizer.json, no model"):
        base.check(tmp_path)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    base.check(tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    pooling = tmp_path / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({"pooling_mode_cls_token": True}))
    with pytest.raises(ModelError, match="something else than the mean"):
        base.check(tmp_path)


@pytest.mark.skipif(
    not DATA or not (Path(DATA) / "stsb" / "stsb_train.tsv.gz").is_file(),
    reason="EDGEBM_DATA names no folder with stsb/stsb_train.tsv.gz",
)
def test_from_pairs_to_answers(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("transformers", reason="needs the extra huggingface")
    folder = tmp_path / "search"
    edgebm_command(folder)
    train = ("--out", folder, "--pairs", 200, "--epochs", 2, "--rate", 1e-3, "--threads", 1)
    assert "test: Spearman" in python(folder, EXAMPLE / "train.py", *train)
    short = ("--measure-seconds", 0.5, "--subset-size", 32, "--max-drop", 100)
    done = call(folder, "sh", EXAMPLE / "compress.sh", folder, *short, RECIPES="int8")
    assert done.returncode == 0, done.stderr
    bundle, figures = folder / "int8.edgebm", folder / "figures.json"
    table = python(
        folder, EXAMPLE / "figures.py", bundle, bundle, "--folder", folder, "--json", figures
    )
    rows = json.loads(figures.read_text())
    assert rows[0]["spearman"] == rows[1]["spearman"]
    assert f"| Spearman x100, test pairs | {rows[0]['spearman']:.2f} |" in table
    assert rows[0]["p50_ms"].keys() == {"16", "32", "64"}

    index = tmp_path / "i.npz"
    device(bundle, "--index", index, "--build", folder / "sentences.txt")
    asked = (folder / "sentences.txt").read_text().splitlines()[17]
    shown = device(bundle, "--index", index, "--query", asked, "-k", 1)[0].splitlines()
    assert shown[1].strip().startswith("1.000")
    assert shown[1].endswith(asked)
