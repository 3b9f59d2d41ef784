"""From a corpus to token data: splits, tokenizer, examples.

Documents, pairs and chats are split by content (``split``); a stream is cut in order, the first 90 % for training, the
next 5 % for validation, the last 5 % for testing, unless its files are the splits.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bowerbird import config
from bowerbird.data import builtin, catalogue, fetch, split, tokenizers
from bowerbird.data.split import SPLITS
from bowerbird.data.tokenizers import PIECE, Tokenizer
from bowerbird.data.tokens import Ragged, Rows, Stream, TokenData, TokenSet, flat, framed, packed, pieces
from bowerbird.errors import BowerbirdError
from bowerbird.media.text import chat, corpus
from bowerbird.media.text.chat import Message
from bowerbird.media.text.corpus import Corpus
from bowerbird.spec import Spec, Tokens

LONGEST_CONTEXT = 256
"""Of models whose context is not given."""
SHORTEST_STREAM = 40
"""Characters: then the last 5 % are two."""
NAMES = {"text": "documents", "pairs": "pairs", "chat": "chats"}
OTHER_ROLES = "system\nuser\nassistant\n"
"""What a prompt may say although the training chats do not."""

Sets = dict[str, TokenSet]


@dataclass
class CorpusPart:
    """One split of a corpus, before it becomes tokens."""

    texts: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    chats: list[list[Message]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.chats or self.texts)

    def read(self) -> list[str]:
        """Everything that becomes tokens."""
        return self.texts + self.sources + [f"{m['role']}\n{m['content']}\n" for one in self.chats for m in one]

    def written(self) -> list[str]:
        """What a model learns to write: texts, or the answers of chats."""
        return self.texts or [m["content"] for one in self.chats for m in one if m["role"] == chat.ANSWERS]


def open_source(data: config.Data) -> TokenData:
    """The text of a built-in name, a file, a folder or a zip."""
    record = next((record for record in catalogue.RECORDS if record.name == data.source), None)
    if record is not None:
        path = builtin.path(record.name) if record.built_in else fetch.needed(record.name) / record.opened
        return open_text(data, path, record.name)
    path = Path(data.source).expanduser()
    return open_text(data, path, path.name or str(path.resolve().name))


def open_text(data: config.Data, path: Path, name: str) -> TokenData:
    """The text at a path as token data; errors say what is wrong with it."""
    found = corpus.read(data, path, name)
    parts, rule = cut(found) if found.stream else divided(found)
    tokenizer = _tokenizer(found, parts, data.text)
    layout = "stream" if found.stream else "packed" if data.text.layout == "packed" else "documents"
    match found.kind:
        case "pairs":
            sets, spec = _pairs(parts, tokenizer, data.text.context, found)
        case "chat":
            sets, spec = _chats(parts, tokenizer, data.text.context)
        case _ if found.stream:
            sets, spec = _stream(parts, tokenizer, data.text.context, name)
        case _:
            sets, spec = _documents(parts, tokenizer, data.text.context, layout)
    context = spec.needs(Tokens, "text").context
    return TokenData(
        name=name,
        spec=spec,
        train=sets["train"],
        val=sets["val"],
        test=sets["test"],
        preprocessing={
            "tokenizer": tokenizer.name,
            "vocab_size": tokenizer.vocab_size,
            "context": context,
            "layout": layout,
            "split": rule,
        },
        skipped=len(found.skipped),
        fingerprint=_fingerprint(found.kind, parts),
        contents=_contents(found, parts, tokenizer, context),
        skipped_why=str(found.skipped),
        note="; ".join(found.notes),
        written={one: part.written() for one, part in parts.items()},
        read={one: part.sources for one, part in parts.items()},
    )


def _tokenizer(found: Corpus, parts: dict[str, CorpusPart], options: config.Text) -> Tokenizer:
    specials = tokenizers.CHAT_SPECIALS if found.kind == "chat" else tokenizers.SPECIALS
    others = parts["val"].read() + parts["test"].read() + ([OTHER_ROLES] if found.kind == "chat" else [])
    return tokenizers.chosen(options.tokenizer, parts["train"].read(), others, options.vocab_size, specials)


def _contents(found: Corpus, parts: dict[str, CorpusPart], tokenizer: Tokenizer, context: int) -> str:
    n_characters = sum(len(text) for part in parts.values() for text in part.written())
    if found.stream:
        what = f"one text of {n_characters:,} characters"
    else:
        n_items = sum(map(len, parts.values()))
        what = f"{n_items:,} {NAMES[found.kind]}, {n_characters:,} characters" + (
            " to write" if found.kind != "text" else ""
        )
    return f"{what}, tokenizer {tokenizer.name} with {tokenizer.vocab_size:,} tokens, context {context}"


def _fingerprint(kind: str, parts: dict[str, CorpusPart]) -> str:
    """The SHA-256 of the kind and of [name, texts, sources, chats] of each split as JSON, written piece by piece."""
    digest = hashlib.sha256(kind.encode())
    for name, part in parts.items():
        digest.update(f"[{json.dumps(name)}, ".encode())
        for items, end in ((part.texts, b", "), (part.sources, b", "), (part.chats, b"]")):
            for i, item in enumerate(items):
                digest.update(b", " if i else b"[")
                for piece in _as_json(item):
                    digest.update(piece.encode())
            digest.update((b"]" if items else b"[]") + end)
    return digest.hexdigest()[:16]


def _as_json(item: Any) -> Iterator[str]:
    if isinstance(item, str) and len(item) > PIECE:  # escapes concern single characters
        yield '"'
        for begin in range(0, len(item), PIECE):
            yield json.dumps(item[begin : begin + PIECE], ensure_ascii=False)[1:-1]
        yield '"'
    else:
        yield json.dumps(item, ensure_ascii=False)


# ------------------------------------------------------------------------------------------------------ splits


def divided(found: Corpus) -> tuple[dict[str, CorpusPart], str]:
    """Every item in the split that its content says, and the rule in words."""
    if len(found.split) < 2:
        raise BowerbirdError(
            f"{found.name} holds only one of its {NAMES[found.kind]}, of which nothing remains to measure with; bring "
            "more" + (", or take data.text.layout = 'stream'." if found.kind == "text" else ".")
        )
    official = np.array(found.split)
    hashed = b"".join(hashlib.sha256(key.encode()).digest()[:8] for key in found.keys())
    where = split.assign(np.frombuffer(hashed, ">u8").astype(np.uint64), official)
    parts = {}
    for name in SPLITS:
        chosen = np.flatnonzero(where == name).tolist()
        parts[name] = CorpusPart(*([items[i] for i in chosen] if items else [] for items in _items(found)))
    return parts, split.RULE[split.present(official)]


def _items(found: Corpus) -> tuple[list, list, list]:
    return found.texts, found.sources, found.chats


def cut(found: Corpus) -> tuple[dict[str, CorpusPart], str]:
    """The splits of a stream, and the rule in words: a split without a file of its own is 5 % off the training text."""
    texts = dict.fromkeys(SPLITS, "")
    for text, name in zip(found.texts, found.split, strict=True):
        texts[name or "train"] += text if len(found.texts) == 1 or text.endswith("\n") else text + "\n"
    missing = [name for name in ("val", "test") if not texts[name]]
    whole = texts["train"]
    if len(whole) < SHORTEST_STREAM:
        raise BowerbirdError(
            f"{found.name} has only {len(whole)} characters; a stream needs {SHORTEST_STREAM} or more."
        )
    ends = [len(whole) * (20 - len(missing) + i) // 20 for i in range(len(missing) + 1)]
    texts["train"] = whole[: ends[0]]
    for i, name in enumerate(missing):
        texts[name] = whole[ends[i] : ends[i + 1]]
    rule = f"in order: train, then {' and '.join(f'5 % {name}' for name in missing)}" if missing else "official"
    return {name: CorpusPart([text]) for name, text in texts.items()}, rule


# ---------------------------------------------------------------------------------------------------- examples


def _tokens(tokenizer: Tokenizer, texts: list[str]) -> Ragged:
    return flat(*tokenizer.encode_all(texts))


def _context(given: int | None, sequences: list[Ragged]) -> int:
    """The context that was given, or what the longest sequence needs, at most 256."""
    longest = max(int(one.offsets.diff().max()) for one in sequences if len(one))
    return given or max(2, min(LONGEST_CONTEXT, longest - 1))


def _stream(parts: dict[str, CorpusPart], tokenizer: Tokenizer, context: int | None, name: str) -> tuple[Sets, Spec]:
    tokens = {one: _tokens(tokenizer, part.texts) for one, part in parts.items()}
    if short := [one for one, ragged in tokens.items() if len(ragged.values) < 2]:
        raise BowerbirdError(f"{name} is too short: its split {short[0]} has fewer than two tokens; bring more text.")
    context = _context(context, [tokens["train"]])
    try:
        start = tokenizer.encode("\n")
    except BowerbirdError:
        start = tokens["train"].values[:1].tolist()
    sets: Sets = {one: Stream(ragged.values, context) for one, ragged in tokens.items()}
    return sets, _spec(tokenizer, context, tuple(start))


def _documents(
    parts: dict[str, CorpusPart], tokenizer: Tokenizer, context: int | None, layout: str
) -> tuple[Sets, Spec]:
    tokens = {one: framed(_tokens(tokenizer, part.texts), tokenizer.bos, tokenizer.eos) for one, part in parts.items()}
    context = LONGEST_CONTEXT if context is None and layout == "packed" else _context(context, list(tokens.values()))
    sets: Sets = {}
    for one, (values, offsets) in tokens.items():
        begin, end = pieces(offsets, context)
        if layout == "packed":
            begin, end = packed(begin, end, context)
            sets[one] = Rows(values, begin, end, tokenizer.pad, documents=offsets)
        else:
            sets[one] = Rows(values, begin, end, tokenizer.pad)
    return sets, _spec(tokenizer, context, (tokenizer.bos,))


def _pairs(parts: dict[str, CorpusPart], tokenizer: Tokenizer, given: int | None, found: Corpus) -> tuple[Sets, Spec]:
    """source + eos, bos + target + eos; pairs of which a side is longer than the context are taken out of ``parts``."""
    sources = {one: framed(_tokens(tokenizer, part.sources), None, tokenizer.eos) for one, part in parts.items()}
    targets = {one: framed(_tokens(tokenizer, part.texts), tokenizer.bos, tokenizer.eos) for one, part in parts.items()}
    context = _context(given, list(targets.values()))
    source_context = given or max(int(one.offsets.diff().max()) for one in sources.values() if len(one))
    source_context = min(source_context, given or LONGEST_CONTEXT)
    sets: Sets = {}
    for one, part in parts.items():
        fits = (targets[one].offsets.diff() <= context + 1) & (sources[one].offsets.diff() <= source_context)
        if not fits.all():
            for i in (~fits).nonzero().flatten().tolist():
                found.skip("too long for the context", part.sources[i][:40])
            part.texts = [text for text, fit in zip(part.texts, fits.tolist(), strict=True) if fit]
            part.sources = [text for text, fit in zip(part.sources, fits.tolist(), strict=True) if fit]
        offsets = targets[one].offsets
        sets[one] = Rows(
            targets[one].values,
            offsets[:-1][fits],
            offsets[1:][fits],
            tokenizer.pad,
            source=_kept(sources[one], fits),
        )
    return sets, _spec(tokenizer, context, (tokenizer.bos,), source_context=source_context)


def _kept(sequences: Ragged, keep: torch.Tensor) -> Ragged:
    lengths = sequences.offsets.diff()
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths[keep].cumsum(0)])
    return Ragged(sequences.values[keep.repeat_interleave(lengths)], offsets)


def _chats(parts: dict[str, CorpusPart], tokenizer: Tokenizer, context: int | None) -> tuple[Sets, Spec]:
    """Chats as their template writes them; of each only the answers, with what ends them, are counted."""
    template = tokenizer.chat_template or chat.CHATML
    if not tokenizer.chat_template and tokenizer.core.token_to_id(tokenizers.CHAT_SPECIALS[1]) is None:
        raise BowerbirdError(
            "The tokenizer has neither a chat template nor the token <|im_start|>, so chats cannot be written for it; "
            f"put a {tokenizers.TEMPLATE_FILE} beside it."
        )
    encoded = {one: _encoded_chats(part.chats, tokenizer, template) for one, part in parts.items()}
    context = _context(context, [tokens for tokens, _ in encoded.values()])
    sets: Sets = {}
    for one, (tokens, counted) in encoded.items():
        begin, end = pieces(tokens.offsets, context)
        so_far = torch.cat([torch.zeros(1, dtype=torch.int64), counted.cumsum(0)])
        answers = so_far[end] > so_far[begin + 1]  # a piece in which nothing is counted would teach nothing
        sets[one] = Rows(tokens.values, begin[answers], end[answers], tokenizer.pad, counted)
    (tokens, counted), special = encoded["train"], tokenizer.core.get_added_tokens_decoder()
    first_end = int(tokens.values[(counted & ~counted.roll(-1)).nonzero()[0]])
    if first_end in special:  # the token that ends an answer, which need not be the one that ends a document
        tokenizer = Tokenizer(tokenizer.core, tokenizer.bos, first_end, tokenizer.pad, template)
    return sets, _spec(tokenizer, context, (tokenizer.bos,), chat_template=template)


def _encoded_chats(chats: list[list[Message]], tokenizer: Tokenizer, template: str) -> tuple[Ragged, torch.Tensor]:
    """All tokens, and which of them begin within an answer."""
    bos_token, eos_token = (str(tokenizer.core.id_to_token(token)) for token in (tokenizer.bos, tokenizer.eos))
    all_ids: list[int] = []
    counted: list[bool] = []
    offsets = [0]
    for messages in chats:
        text, spans = chat.marked(messages, template, bos_token=bos_token, eos_token=eos_token)
        ids, starts = tokenizer.encode_marked(text)
        all_ids += ids
        counted += [any(begin <= start < end for begin, end in spans) for start in starts]
        offsets.append(len(all_ids))
    return flat(np.array(all_ids, np.int64), np.array(offsets)), torch.tensor(counted, dtype=torch.bool)


def _spec(
    tokenizer: Tokenizer,
    context: int,
    start: tuple[int, ...],
    source_context: int = 0,
    chat_template: str = "",
) -> Spec:
    target = Tokens(tokenizer.vocab_size, context, tokenizer.bos, tokenizer.eos, tokenizer.pad, start)
    given = {"source": replace(target, context=source_context, start=())} if source_context else {}
    return Spec("text", target, given, codec=tokenizer.to_json(), chat_template=chat_template)
