"""Students that were trained, kept beside the journal until a run is complete."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgebm.errors import ModelError, UsageError
from edgebm.importers import import_model
from edgebm.ir.model import Model
from edgebm.runtime.files import write_atomically
from edgebm.runtime.journal import Journal


class Students:
    """Trained models by what they are made from. Without a journal's path they are not kept."""

    def __init__(self, journal: Journal) -> None:
        path = journal.path
        self._folder = None if path is None else path.with_name(f"{path.name}.students")

    def checkpoint(self, parts: Mapping[str, Any]) -> Path | None:
        """Where training of the student made from exactly `parts` keeps how far it is."""
        return self._path(parts, "checkpoint")

    def find(self, parts: Mapping[str, Any]) -> Model | None:
        """The student made from exactly `parts`, JSON types, or None."""
        path = self._path(parts, "onnx")
        if path is None or not path.is_file():
            return None
        try:
            return import_model(path)
        except ModelError as cause:
            raise UsageError(
                f"{path}, which an unfinished run has left, cannot be read: {cause}",
                hint="delete it: the model is trained again then",
            ) from cause

    def keep(self, parts: Mapping[str, Any], model: Model) -> None:
        """Keep a student that was trained; its checkpoint is not needed any more."""
        path = self._path(parts, "onnx")
        if path is None:
            return
        write_atomically(path, model.to_bytes())
        path.with_suffix(".checkpoint").unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete all: the run is complete."""
        if self._folder is not None and self._folder.is_dir():
            shutil.rmtree(self._folder)

    def _path(self, parts: Mapping[str, Any], suffix: str) -> Path | None:
        if self._folder is None:
            return None
        self._folder.mkdir(exist_ok=True)
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        return self._folder / f"{key[:16]}.{suffix}"
