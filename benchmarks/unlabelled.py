"""Unlabelled samples that pruned models of the benchmarks are taught on.

``python benchmarks/unlabelled.py cifar10 minilm --data PATH`` leaves in ``benchmarks/out``
cifar10_unlabelled.npz (47,500 training images without their labels; the other 2,500 are
cifar10_validation.npz) and minilm_unlabelled.npz (47,000 sentences: captions of Multi30k, STS-B
and SST-2, each training set). Clips of spoken digits are in speech_calibration_all.npz.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import minilm
import numpy as np
from datasets import WORK, add_data_option, cifar10, data_folder
from train import split_by_group


def images(data: Path) -> Path:
    """The training images of CIFAR-10 that nothing is validated on."""
    dataset = cifar10(data)
    kept = split_by_group(dataset, 0.05, 0)[0].numpy()
    path = WORK / "cifar10_unlabelled.npz"
    np.savez(path, image=dataset.normalize(dataset.train.images[kept]))
    return path


def sentences(data: Path) -> Path:
    """Every sentence of three training sets, each once, as token ids and masks."""
    found = minilm.read_pairs(data, "train")[0]
    with gzip.open(data / "multi30k_en_de" / "train.en.gz", "rt", encoding="utf-8") as lines:
        found += [line.strip() for line in lines]
    with gzip.open(data / "sst2" / "sst2_train.tsv.gz", "rt", encoding="utf-8") as rows:
        found += [line.partition("\t")[0] for line in rows]
    unique = list(dict.fromkeys(line for line in found if line))
    order = np.random.default_rng(0).permutation(len(unique))
    path = WORK / "minilm_unlabelled.npz"
    np.savez(path, **minilm.tokenize([unique[index] for index in order]))
    return path


MAKERS = {"cifar10": images, "minilm": sentences}


def main() -> None:
    """Parse the options and write what was named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=sorted(MAKERS))
    add_data_option(parser)
    options = parser.parse_args()
    for name in options.names:
        print(MAKERS[name](data_folder(options.data)))


if __name__ == "__main__":
    main()
