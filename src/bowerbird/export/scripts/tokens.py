"""Writes text, or sequences of tokens, with the ONNX graph beside this file.  Needs numpy and onnxruntime, not torch.

    python sample.py --n 4 --seed 0 --out samples
    python sample.py --prompt "Ein Hund läuft."        (a beginning, or what is to be translated)

sampler.json says what the model makes and how; ``Sampler`` reads it.  Every token is one evaluation of the whole row,
which is simple, and slower than a program that remembers keys and values.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

Given = dict[str, np.ndarray]
LEAST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
"""Options that float32 cannot hold count as the nearest that it can."""


class Rows:
    """Random numbers: row i of a seed has its own, however many rows are written."""

    def __init__(self, seed: int, n: int):
        self.rows = [np.random.default_rng([seed, i]) for i in range(n)]

    def at(self, place: int) -> np.ndarray:
        """One number in [0, 1) for the token at this place of each row."""
        return np.array([row.random(dtype=np.float32) for row in self.rows])


class Sampler:
    """(n, given, rows) → tokens, int64 (n, length); ``given`` may hold the ``prompt`` or ``source`` (n, length)."""

    def __init__(self, folder: Path):
        self.settings = json.loads((folder / "sampler.json").read_text(encoding="utf-8"))
        self.procedure = self.settings["procedure"]
        file = str(folder / f"{self.procedure['piece']}.onnx")
        self.session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])

    def __call__(self, n: int, given: Given, rows: Any) -> np.ndarray:
        return np.stack(list(self.stream(n, given, rows)), 1)

    def stream(self, n: int, given: Given, rows: Any, most: int | None = None) -> Iterator[np.ndarray]:
        """The next token of every row, until all have ended; after its end a row has padding."""
        p = self.procedure
        begin = [p["bos"]] if p["kind"] == "pairs" else p["start"]
        past = given.get("prompt", np.tile(np.array(begin, np.int64), (n, 1)))
        ended = np.zeros(n, bool)
        for _ in range(most or max(1, p["most"] - past.shape[1])):
            tokens = self.choose(self.logits(past, given), past, rows)
            tokens = np.where(np.isin(tokens, p.get("sampling", {}).get("also_eos", [])), p["eos"], tokens)
            tokens = np.where(ended, p["pad"], tokens)
            yield tokens
            ended |= tokens == p["eos"]
            past = np.concatenate([past, tokens[:, None]], 1)
            if ended.all():
                return

    def logits(self, past: np.ndarray, given: Given) -> np.ndarray:
        """Of the token after each row."""
        source = {"source": given["source"]} if self.procedure["kind"] == "pairs" else {}
        return self.session.run(None, source | {"tokens": past})[0][:, -1]

    def choose(self, logits: np.ndarray, past: np.ndarray, rows: Any) -> np.ndarray:
        """The first token whose cumulative probability exceeds a random number; the most probable at temperature 0."""
        s = self.procedure.get("sampling", {"temperature": 0.0})
        if (penalty := s.get("repetition_penalty", 1.0)) != 1:
            old = np.take_along_axis(logits, past, 1)
            logits = logits.copy()
            with np.errstate(over="ignore"):
                old = np.where(old > 0, old / max(penalty, LEAST), old * min(penalty, LARGEST))
            np.put_along_axis(logits, past, old.clip(-LARGEST, LARGEST), 1)
        if s["temperature"] == 0:
            return logits.argmax(1)
        if s["temperature"] != 1:
            with np.errstate(over="ignore"):  # -inf is what is meant
                logits = (logits - logits.max(1, keepdims=True)) / np.float32(max(s["temperature"], LEAST))
        if s["top_k"]:
            least = np.sort(logits, 1)[:, -min(s["top_k"], logits.shape[1]), None]
            logits = np.where(logits < least, -np.inf, logits)
        probability = softmax(logits)
        if s["top_p"] < 1:
            ordered = np.sort(probability, 1)[:, ::-1]
            before = ordered.cumsum(1) - ordered
            least = np.where(before >= s["top_p"], 1.0, ordered).min(1, keepdims=True)
            probability = np.where(probability < least, 0, probability)
        if s["min_p"] > 0:
            probability = np.where(probability < s["min_p"] * probability.max(1, keepdims=True), 0, probability)
        return drawn(probability, s["top_k"], rows.at(past.shape[1]))


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def drawn(probability: np.ndarray, by_size: int, u: np.ndarray) -> np.ndarray:
    """A token from each row: the first whose cumulative probability exceeds u times the sum.

    With ``by_size`` the most probable tokens come first, as they do where only the k largest are kept.
    """
    order = np.argsort(-probability, 1, kind="stable") if by_size else np.arange(probability.shape[1])[None]
    order = np.broadcast_to(order, probability.shape)
    cumulative = np.take_along_axis(probability, order, 1).cumsum(1)
    place = (cumulative <= u[:, None] * cumulative[:, -1:]).sum(1, keepdims=True)
    return np.take_along_axis(order, place, 1)[:, 0]


# ------------------------------------------------------------------------------------------------ tokens and text


class Text:
    """tokenizer.json for vocabularies of characters or bytes; others need the package tokenizers."""

    def __init__(self, folder: Path, target: dict[str, Any]):
        self.file, self.target = folder / "tokenizer.json", target
        model = json.loads(self.file.read_text(encoding="utf-8"))["model"]
        self.ids = model["vocab"] if model["type"] == "WordLevel" else None
        self.characters = {i: token for token, i in (self.ids or {}).items()}

    def encode(self, text: str) -> list[int]:
        if self.ids is None:
            return self._package().encode(text, add_special_tokens=False).ids
        unknown = [c for c in text if c not in self.ids]
        if unknown:
            raise SystemExit(f"The vocabulary of this model lacks the character '{unknown[0]}'.")
        return [self.ids[c] for c in text]

    def decode(self, tokens: list[int]) -> str:
        special = {self.target["bos"], self.target["eos"], self.target["pad"]}
        if self.ids is None:
            return self._package().decode([t for t in tokens if t not in special])
        return "".join(self.characters.get(t, "") for t in tokens if t not in special)

    def _package(self) -> Any:
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self.file))


def beginnings(sampler: Sampler, text: Text | None, prompt: str | None, n: int) -> Given:
    """What the rows are given: the prompt after ``start``, or the source."""
    if sampler.procedure["kind"] == "pairs" and prompt is None:
        raise SystemExit("This model turns one text into another; give it with --prompt.")
    if prompt is None or text is None:
        return {}
    ids = text.encode(prompt)
    if sampler.procedure["kind"] == "pairs":
        return {"source": np.array([[*ids, sampler.procedure["eos"]]] * n, np.int64)}
    begin = [token for token in sampler.procedure["start"] if token == sampler.settings["target"]["bos"]]
    return {"prompt": np.array([[*begin, *ids]] * n, np.int64)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes sequences with the ONNX graph beside this file.")
    parser.add_argument("--n", type=int, default=4, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same sequences")
    parser.add_argument("--prompt", help="what they begin with, or what is translated")
    parser.add_argument("--out", type=Path, default=Path("samples"), help="folder to write to")
    asked = parser.parse_args()
    here = Path(__file__).parent
    sampler = Sampler(here)
    text = Text(here, sampler.settings["target"]) if sampler.settings["medium"] == "text" else None
    given = beginnings(sampler, text, asked.prompt, asked.n)
    new = sampler(asked.n, given, Rows(asked.seed, asked.n))
    whole = np.concatenate([given["prompt"], new], 1) if "prompt" in given else new
    asked.out.mkdir(parents=True, exist_ok=True)
    if text is None:
        (asked.out / "tokens.json").write_text(json.dumps(whole.tolist()), encoding="utf-8")
        print(asked.out / "tokens.json")
        return
    said = [text.decode(row) for row in whole.tolist()]
    (asked.out / "samples.txt").write_text("\n\n".join(said) + "\n", encoding="utf-8")
    print("\n\n".join(said))


if __name__ == "__main__":
    main()
