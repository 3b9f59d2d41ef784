"""A medium in one file: tables of numbers.  `bowerbird train my_medium.toml --data measurements.csv` learns a table.

A row of a CSV file is an example: x has the shape (columns, 1, 1), standardised column by column.  The means and
standard deviations lie in the spec as its codec, so that samples are written in the units of the file.
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bowerbird import registry
from bowerbird.data import split
from bowerbird.data.writing import write_text
from bowerbird.errors import BowerbirdError
from bowerbird.media.medium import Medium
from bowerbird.spec import Spec, Tensors


@dataclass
class TableSet:
    """One split: rows as they are given to models."""

    x: torch.Tensor
    lengths = None

    def __len__(self):
        return len(self.x)

    def batch(self, indices, device="cpu"):
        return {"x": self.x[indices].to(device)}


@dataclass
class TableData:
    """A table, split by the content of its rows."""

    name: str
    spec: Spec
    fingerprint: str
    preprocessing: dict
    train: TableSet
    val: TableSet
    test: TableSet

    def summary(self):
        sizes = [f"{name} {len(getattr(self, name)):,}" for name in split.SPLITS]
        return f"{self.name}: {self.spec.target.dims} columns of numbers; {', '.join(sizes)} rows"


@registry.media.register("table")
class Table(Medium):
    """Rows of a CSV file whose first line names its columns."""

    name, modalities, suffixes = "table", ("table",), (".csv",)
    n_samples, n_preview, n_measured = 100, 20, 1000

    def open(self, data):
        path = Path(data.source).expanduser()
        with open(path, newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        try:
            numbers = np.array(rows, np.float32)
        except ValueError as error:
            raise BowerbirdError(f"{path} holds something that is no number: {error}.") from error
        where = split.assign(split.digests(numbers), np.full(len(numbers), ""))
        mean, std = numbers[where == "train"].mean(0), numbers[where == "train"].std(0) + 1e-6
        scaled = torch.from_numpy((numbers - mean) / std)[..., None, None]
        codec = json.dumps({"columns": header, "mean": mean.tolist(), "std": std.tolist()})
        spec = Spec("table", Tensors((len(header), 1, 1), bounds=None), codec=codec)
        sets = {name: TableSet(scaled[torch.from_numpy(where == name)]) for name in split.SPLITS}
        fingerprint = f"{int(split.digests(numbers[None])[0]):016x}"
        return TableData(path.name, spec, fingerprint, {"split": split.RULE[()]}, **sets)

    def decoded(self, x, spec):
        scale = json.loads(spec.codec)
        rows = x.flatten(1).cpu().numpy() * np.array(scale["std"]) + np.array(scale["mean"])
        return [dict(zip(scale["columns"], row.round(4).tolist(), strict=True)) for row in rows]

    def write(self, x, given, spec, folder, names):
        self.preview(x, given, spec, folder / "samples")
        return [{"row": row} for row in self.decoded(x, spec)]

    def preview(self, x, given, spec, stem):
        rows = self.decoded(x, spec)
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        write_text(stem.with_suffix(".csv"), "\n".join(lines) + "\n")

    def html(self, x, given, spec):
        rows = self.decoded(x, spec)
        lines = ["".join(f"<td>{value}" for value in row) for row in ([*rows[0]], *(row.values() for row in rows))]
        return f"<table>{''.join(f'<tr>{line}' for line in lines)}</table>"
