"""Text: documents, pairs of texts and chats as tokens; written as lines of JSON and plain text."""

import html as escaping
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bowerbird import config, registry
from bowerbird.media.medium import Medium

if TYPE_CHECKING:
    from torch import Tensor

    from bowerbird.data.tokens import TokenData
    from bowerbird.spec import Spec

TRUTH = "truth"
"""Name under which ``preview`` finds the true targets of pairs."""


@registry.media.register("text")
class TextMedium(Medium):
    """Characters, as the tokens of a tokenizer (``bowerbird.data.tokenizers``)."""

    name = "text"
    modalities = ("text", "pairs", "chat")
    settings = ("text",)
    suffixes = (".txt", ".md", ".jsonl", ".json", ".csv", ".tsv", ".parquet", ".yml", ".yaml")
    n_samples, n_preview, n_measured = 8, 8, 200

    def holds(self, name: str) -> bool:
        from bowerbird.media.text.corpus import is_text

        return is_text(name)

    def open(self, data: config.Data) -> "TokenData":
        from bowerbird.media.text.documents import open_source

        return open_source(data)

    def decoded(self, x: "Tensor", spec: "Spec") -> list[Any]:
        from bowerbird.data.tokenizers import Tokenizer

        tokenizer = Tokenizer.from_spec(spec)
        return [tokenizer.decode(row.tolist()) for row in x]

    def write(
        self, x: "Tensor", given: Mapping[str, Any], spec: "Spec", folder: Path, names: list[str]
    ) -> list[dict[str, Any]]:
        texts = self.decoded(x, spec)
        shown = {name: self.decoded(given[name], spec) for name in ("prompt", "source") if name in given}
        self.preview(x, {}, spec, folder / "samples")
        return [{name: value[i] for name, value in shown.items()} | {"text": text} for i, text in enumerate(texts)]

    def encoded(self, x: "Tensor", given: Mapping[str, Any], spec: "Spec") -> list[dict[str, bytes]]:
        return [{".txt": text.encode()} for text in self.decoded(x, spec)]

    def preview(self, x: "Tensor", given: Mapping[str, Any], spec: "Spec", stem: Path) -> None:
        """One sample after the other, those made from a source between it and the truth."""
        from bowerbird.data.writing import write_text

        parts = [given["source"]] if "source" in given else []
        parts += [x, *([given[TRUTH]] if TRUTH in given else [])]
        columns = [self.decoded(part, spec) for part in parts]
        texts = ["\n".join(text.strip("\n") for text in lines) for lines in zip(*columns, strict=True)]
        write_text(stem.with_suffix(".txt"), "\n\n".join(texts) + "\n")

    def html(self, x: "Tensor", given: Mapping[str, Any], spec: "Spec") -> str:
        return "".join(f"<pre>{escaping.escape(text)}</pre>" for text in self.decoded(x, spec))
