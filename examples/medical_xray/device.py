"""Reads chest X-rays on the device: numpy and edgebm, no torch.

    python examples/medical_xray/device.py xray/xray.edgebm xray/test.npz

The file holds `image`: gray values 0 to 255, [N, 28, 28] or [N, 1, 28, 28], of any number type.
With `labels` [N] (0 normal, 1 pneumonia) the summary counts what was right. An image that cannot
be judged (NaN, another size, values that were divided by 255, nothing on it) gets no verdict and
says why. An answer whose two shares are near each other is for a person to look at.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgebm
from edgebm.errors import EdgebmError, InputError

UNSURE = 0.8  # below this share of the likelier answer a person should look


def as_input(image: NDArray[Any]) -> NDArray[np.float32]:
    """An image [28, 28] or [1, 28, 28] as the model takes it, [1, 1, 28, 28].

    Raises:
        InputError: there is nothing on it, or its values are not those of a file.
    """
    low, high = image.min(), image.max()
    if low == high:
        raise InputError(f"every pixel is {low:g}", hint="check the detector")
    if high <= 1:
        raise InputError("no value is above 1", hint="give gray values 0 to 255, not shares")
    return np.asarray(image, np.float32).reshape(1, 1, *image.shape[-2:])


def told(session: edgebm.Session, images: NDArray[Any]) -> Iterator[tuple[str, str]]:
    """For each image the finding ("normal", "pneumonia" or "no verdict"), and a remark."""
    for image in images:
        try:
            answer = session.run(image=as_input(image))
        except InputError as error:
            yield "no verdict", str(error)
            continue
        normal, pneumonia = answer["scores"][0].astype(float)
        share = 1 / (1 + np.exp(normal - pneumonia))
        remarks = [doubt.message for doubt in answer.doubts]
        if max(share, 1 - share) < UNSURE:
            remarks.append("unsure, let a person look")
        remark = "; ".join([f"pneumonia {share:.2f}", *remarks])
        yield ("pneumonia" if pneumonia > normal else "normal"), remark


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("samples", type=Path, help=".npz with image, and labels if known")
    arguments = parser.parse_args()
    with np.load(arguments.samples, allow_pickle=False) as file:
        if "image" not in file:
            sys.exit(f"error: {arguments.samples} holds {', '.join(file)}, and no array image")
        images, labels = file["image"], file.get("labels")
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[1] != 1):
        sys.exit(f"error: image has the shape {list(images.shape)}, not [N, 28, 28]")
    findings = []
    with edgebm.load(arguments.bundle) as session:
        for number, (finding, remark) in enumerate(told(session, images)):
            print(f"image {number}: {finding}: {remark}")
            findings.append(finding)
    counts = Counter(findings)
    kinds = ("normal", "pneumonia", "no verdict")
    print(f"{len(findings)} images: {', '.join(f'{counts[kind]} {kind}' for kind in kinds)}")
    for label, kind in enumerate(kinds[:2] if labels is not None else ()):
        of_kind = [f for f, truth in zip(findings, labels, strict=True) if truth == label]
        print(f"{of_kind.count(kind)} of {len(of_kind)} images with {kind} are told as such")


if __name__ == "__main__":
    try:
        main()
    except EdgebmError as error:
        sys.exit(f"error: {error}\nhint:  {error.hint}")
