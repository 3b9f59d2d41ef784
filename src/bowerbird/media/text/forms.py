"""What the columns of a table are: texts, pairs or chats.

    text     a column of texts
    pairs    a source and a target
    chat     messages {role, content}; conversations {from, value} (ShareGPT); a question and its answer under one of
             the usual names: instruction (+ input) and output (Alpaca), prompt and completion, question and answer

Columns that the user names come first, then these in the order chat, pairs, text.  Whatever else a table has is said.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from bowerbird import config
from bowerbird.data.tables import Header, Table
from bowerbird.errors import BowerbirdError
from bowerbird.media.text import chat
from bowerbird.media.text.chat import ANSWERS, Message

Kind = Literal["text", "pairs", "chat"]
MESSAGES = ("messages", "conversations", "conversation")
QUESTIONS = ("instruction", "prompt", "question", "query")
ANSWER = ("output", "completion", "answer", "response", "reply")
"""Those at the same place belong together; any other two do if a table has no third."""
MORE = ("input", "context")
"""What a question is about, written below it."""
SYSTEM = ("system", "system_prompt")
SPEAKERS = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bard", "bing", "model", "assistant"), ANSWERS),
}
"""Who speaks under ``from``, as a role."""
USUAL = config.Text()
HOW = "--data.text.text, or --data.text.source and --data.text.target"


@dataclass(frozen=True)
class Form:
    """What is read of each row."""

    kind: Kind
    needed: tuple[str, ...]
    """Columns that every row must have."""
    others: tuple[str, ...] = ()
    """Columns that are read where a row has them."""

    @property
    def columns(self) -> tuple[str, ...]:
        return self.needed + self.others

    def chat(self, row: dict[str, Any], where: str) -> list[Message]:
        """The messages of a row; BowerbirdError if they are none."""
        if len(self.needed) == 1:
            messages = _messages(row[self.needed[0]])
        else:
            messages = self._question(row, where)
        said = (row.get(one) for one in self.others if one.casefold() in SYSTEM)
        system = next((one for one in said if isinstance(one, str) and one.strip()), "")
        if system and isinstance(messages, list):
            messages = [{"role": "system", "content": system}, *messages]
        return chat.checked(messages, where)

    def question(self, row: dict[str, Any], where: str) -> str:
        """The first needed column, with what it is about below it."""
        parts = [row[self.needed[0]], *(row[one] for one in self.others if one.casefold() in MORE and row.get(one))]
        if not all(isinstance(part, str) for part in parts):
            raise BowerbirdError(f"{where}: {self.needed[0]} must be text.")
        return "\n\n".join(parts)

    def _question(self, row: dict[str, Any], where: str) -> Any:
        asked, answer = (row[column] for column in self.needed)
        if isinstance(asked, list) and isinstance(answer, list):
            return _messages([*asked, *answer])
        return [{"role": "user", "content": self.question(row, where)}, {"role": ANSWERS, "content": answer}]


def chosen(columns: Sequence[str], data: config.Data, translation: Sequence[str] = ()) -> Form | None:
    """What a table with these columns holds; None if that is not clear."""
    found = {name.strip().casefold(): name for name in reversed(columns)}
    for form in _wanted(found, data, translation):
        if all(one.casefold() in found for one in form.needed):
            needed, others = (
                tuple(one if one in columns else found.get(one.casefold(), one) for one in names)
                for names in (form.needed, form.others)
            )
            return Form(form.kind, needed, others)
    return None


def named(text: config.Text) -> tuple[str, ...]:
    """The columns that the user named."""
    if text.text != USUAL.text:
        return (text.text,)
    pair = (text.source, text.target)
    return pair if pair != (USUAL.source, USUAL.target) else ()


def _wanted(found: dict[str, str], data: config.Data, translation: Sequence[str]) -> list[Form]:
    """All forms that may be meant, the best first."""
    kind, text = data.modality, data.text
    if (names := named(text)) and kind in ("auto", "text" if len(names) == 1 else "pairs"):
        return [Form("text" if len(names) == 1 else "pairs", names)]
    forms = [Form("chat", (one,), SYSTEM) for one in MESSAGES]
    forms += [Form("pairs", (text.source, text.target))] + [Form("pairs", tuple(translation))] * (len(translation) == 2)
    if (asked := _asked(found)) and kind == "pairs":
        forms.append(Form("pairs", asked, MORE))
    elif asked:
        forms.append(Form("chat", asked, MORE + SYSTEM))
    forms.append(Form("text", (text.text,)))
    return [form for form in forms if kind in ("auto", form.kind)]


def _asked(found: dict[str, str]) -> tuple[str, ...]:
    """The columns of a question and its answer, none if there are several."""
    for pair in zip(QUESTIONS, ANSWER, strict=False):
        if all(one in found for one in pair):
            return pair
    asked, answers = ([one for one in names if one in found] for names in (QUESTIONS, ANSWER))
    return (asked[0], answers[0]) if len(asked) == len(answers) == 1 else ()


def refused(name: str, table: Table, data: config.Data, *, cells: bool) -> BowerbirdError:
    """The error for a table of which it is not clear what it holds; ``cells``: its columns can be counted."""
    usual = {"chat": ("messages",), "pairs": (data.text.source, data.text.target), "text": (data.text.text,)}
    wanted = [names for kind, names in usual.items() if data.modality in ("auto", kind)]
    asked = " or ".join(" and ".join(map(repr, names)) for names in wanted)
    names = [repr(column if len(column) <= 40 else f"{column[:40]} …") for column in table.columns]
    shown = [
        f"{name} ({table.example[column][:30]!r} …)" if table.example else name
        for name, column in zip(names, table.columns, strict=True)
    ]
    columns = ", ".join(islice(shown, 20)) + (" …" if len(table.columns) > 20 else "")
    count = ", or by number, such as 2, if there is no header" if cells and not table.example else ""
    return BowerbirdError(
        f"{name} has no column {asked}; its columns: {columns}. Name the right ones with {HOW}{count}."
    )


def _messages(value: Any) -> Any:
    """Messages with role and content, if they have them under a usual name; ``chat.checked`` says what is wrong."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return value
    return [_message(one) if isinstance(one, dict) else one for one in value] if isinstance(value, list) else value


def _message(one: dict[str, Any]) -> dict[str, Any]:
    if "from" in one and "role" not in one:
        speaker = one["from"]
        return {"role": SPEAKERS.get(speaker, speaker), "content": one.get("value")}
    content = one.get("content")
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        return one | {"content": "".join(str(part.get("text")) for part in content)}
    return one


# ------------------------------------------------------------------------------------------------- headers

LANGUAGES = set(
    """english german french spanish italian portuguese dutch russian chinese japanese korean arabic hindi turkish
    polish czech swedish danish norwegian finnish hungarian greek hebrew thai vietnamese indonesian ukrainian romanian
    bulgarian persian farsi latin esperanto mandarin cantonese catalan croatian serbian slovak lithuanian latvian
    estonian bengali tamil urdu swahili malay tagalog irish welsh icelandic
    en de fr es it pt nl ru zh ja ko ar hi tr pl cs sv da nb nn fi hu el he th vi id uk ro bg fa la eo ca hr sr sk lt
    lv et bn ta ur sw ms tl ga cy is us gb br cn tw hk
    eng deu ger fra fre spa ita por nld dut rus cmn zho jpn kor ara hin tur pol ces cze swe dan nor fin hun ell heb tha
    vie ind ukr ron bul fas lat epo cat hrv srp slk lit lav est
    deutsch englisch französisch spanisch russisch chinesisch français anglais allemand espagnol español inglés alemán
    francés русский английский 中文 英文 汉语 漢語 英语 英語 日语 日本語 日文 韩语 한국어 영어""".split()
)
FIELDS = set(
    """id idx index number src tgt trg source target input output sentence sentences sent text texts title headline
    body content label class category document doc summary article abstract question answer query response prompt
    completion reply context translation translated lang language original reference ref hypothesis premise phrase
    definition formal informal complex simple simplified normal noisy correct incorrect cleaned raw score date author
    url name message chosen rejected instruction description caption story poem lyrics tweet review comment topic
    keyword passage term meaning gloss pinyin value utterance transcript paraphrase col column field line
    原文 译文 譯文 句子 文本 翻译""".split()
)
"""A first line of nothing but these, languages and identifiers is a header, not data."""
IDENTIFIER = re.compile(r"[^\W_]+(?:_[^\W_]+)+|[a-z]+(?:[A-Z][a-z]+)+")
"""Like source_text and sourceText."""
ATTRIBUTION = re.compile(r"cc[ -]", re.IGNORECASE)
"""The third column of Anki's decks, after the two sides."""


def header(rows: list[list[str]], data: config.Data, *, certain: bool) -> Header:
    """How the first rows of a table name its columns; ``certain``: such files begin with a header.

    Without a header columns are called 1, 2 …, and two columns of text are source and target.  Numbers that the user
    gives count columns, unless the header is 0, 1, 2 … itself, as pandas writes it.
    """
    first = [cell.strip() for cell in rows[0]]
    numbers = [str(i + 1) for i in range(len(first))]
    names = named(data.text)
    if names and all(name.isdecimal() for name in names) and first != [str(i) for i in range(len(first))]:
        skipped = has_header(rows)
        return Header(
            numbers, skipped, f"the first line is {'a header' if skipped else 'data'}: {', '.join(first)[:60]!r}"
        )
    if certain or names or chosen(first, data) or has_header(rows):
        return Header(first, True)
    if len(first) == 1 and data.modality in ("auto", "text"):
        return Header([data.text.text], False, "no line has a tab, so each line is a text")
    if data.modality != "text" and (pair := sides(rows)):
        for i, name in zip(pair, (data.text.source, data.text.target), strict=True):
            numbers[i] = name
        return Header(numbers, False, _note_of(rows, pair))
    return Header(numbers, False)


def _note_of(rows: list[list[str]], pair: tuple[int, int]) -> str:
    """What the user may not expect of the columns that are taken for source and target."""
    for i, side in zip(pair, ("source", "target"), strict=True):
        values = {row[i] for row in rows if len(row) > i}
        looks_like = "numbers" if all(map(_is_number, values)) else "a label" if len(values) <= len(rows) // 10 else ""
        if looks_like:
            return f"column {i + 1} is taken for {side}, but looks like {looks_like}"
    return "" if len(rows[0]) == 2 else f"columns {pair[0] + 1} and {pair[1] + 1} are source and target"


def has_header(rows: list[list[str]]) -> bool:
    """Whether the first row names columns: by its words, or since a column has numbers everywhere but there."""
    first, others = rows[0], rows[1:]
    if any(cell.strip() for cell in first) and all(
        IDENTIFIER.fullmatch(cell.strip()) or _consists_of(LANGUAGES | FIELDS, cell) for cell in first
    ):
        return True
    return any(
        not _is_number(cell) and len(others) > 1 and all(_is_number(row[i]) for row in others if len(row) > i)
        for i, cell in enumerate(first)
    )


def _consists_of(words: set[str], cell: str) -> bool:
    return all(word in words for word in re.split(r"[\s\d_.:/()-]+", cell.casefold()) if word)


def _is_number(cell: str) -> bool:
    return cell.strip().lstrip("-").replace(".", "", 1).isdecimal()


def sides(rows: list[list[str]]) -> tuple[int, int] | None:
    """Which columns of rows without a header are source and target: the two, or the two that hold no numbers.

    None if it is not clear.
    """
    if len(rows[0]) == 2:
        return 0, 1
    texts = [i for i in range(len(rows[0])) if not all(_is_number(row[i]) for row in rows if len(row) > i)]
    if len(texts) == 3 and texts == [0, 1, 2] and all(ATTRIBUTION.match(row[2]) for row in rows if len(row) > 2):
        texts = texts[:2]
    if len(texts) != 2 or _is_language(rows, texts):
        return None
    return texts[0], texts[1]


def _is_language(rows: list[list[str]], texts: list[int]) -> bool:
    """Whether a column says in each row which language the other is in."""
    return any(all(_consists_of(LANGUAGES, row[i]) for row in rows if len(row) > i) for i in texts)
