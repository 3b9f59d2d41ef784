"""The writer: turns facts into sentences of one language, and keeps what belongs to a whole reading."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bowerbird.reading.explain import cards
from bowerbird.reading.explain.families import known
from bowerbird.reading.explain.reading import Block, Code, Formula, Heading, Items, Paragraph, Question, Table
from bowerbird.reading.explain.study import Study
from bowerbird.reading.explain.text import Piece, Ref, Text, general, joined, made
from bowerbird.reading.facts import Fact
from bowerbird.reading.wording import Language, sentences

MOST_LINES = 60
SENTENCES = sentences(Path(__file__).with_name("sentences.toml"))


class Writer:
    """``say`` takes the key of a sentence, the fact that fills its places, and what fills the others."""

    def __init__(self, study: Study, lang: Language) -> None:
        self.study, self.lang = study, lang
        self._asked: set[str] = set()

    def say(self, key: str, fact: Fact | None = None, /, **given: Piece | Iterable[Piece]) -> Text:
        if fact is not None:
            given = {"line": self.line(fact), **given}
        return made(self.words(key), self.lang, given, fact)

    def paragraph(self, *texts: Text, lead: str = "") -> Paragraph:
        return Paragraph(Text(tuple(part for text in texts for part in text.parts)), lead and self.words(lead))

    def said(self, key: str, fact: Fact | None = None, /, **given: Piece | Iterable[Piece]) -> Paragraph:
        return Paragraph(self.say(key, fact, **given))

    def heading(self, key: str, fact: Fact | None = None, /, **given: Piece | Iterable[Piece]) -> Heading:
        return Heading(self.say(key, fact, **given))

    def formula(self, fact: Fact, words: str) -> Formula:
        return Formula(Text((general(fact, words),)))

    def words(self, key: str) -> str:
        return SENTENCES[key][self.lang]

    def table(self, key: str, rows: Iterable[Sequence[Piece]]) -> Iterator[Table]:
        """A table whose columns are named by ``head.key``; nothing where it has no rows."""
        cells = tuple(tuple(c if isinstance(c, Text) else Text((c,)) for c in row) for row in rows)
        if cells:
            yield Table(tuple(self.words(f"head.{key}").split(" | ")), cells)

    def items(self, texts: Iterable[Text], *, ordered: bool = False) -> Iterator[Block]:
        found = tuple(texts)
        if found:
            yield Items(found, ordered)

    # ----------------------------------------------------------------------------------------------------- places

    def line(self, fact: Fact, line: int | None = None, file: str = "") -> Ref:
        """A line as a reader finds it; one that is not the fact's own stands in the fact's value."""
        number = line or fact.line or 1
        words = self.study.source.where(number, self.lang)
        file = file or fact.file
        if file and file != self.study.file:
            words = f"{self.study.short(file)} {words}"
        return Ref(words, fact.id, "line", number, file)

    def lines(self, fact: Fact, numbers: Sequence[int]) -> Text:
        """Several lines of a fact's value, the first six."""
        return joined([self.line(fact, n) for n in numbers[:6]], self.lang)

    def excerpt(self, file: str, first: int, last: int) -> Iterator[Code]:
        """Lines of a file as they stand; long ones are cut at their end."""
        lines = self.study.source.texts.get(file, "").splitlines()[first - 1 : min(last, first + MOST_LINES - 1)]
        if not lines:
            return
        value = {"first": first, "last": first + len(lines) - 1}
        fact = self.study.add("source.excerpt", self.study.short(file), value, file=file, line=first)
        grave = [f for f in self.study.findings if f.severity in ("error", "warning") and f.file == file]
        marked = sorted({(f.line, f.severity) for f in grave if first <= f.line < first + len(lines)})
        yield Code(file, first, tuple(lines), fact.id, tuple(marked))

    # ------------------------------------------------------------------------------------------------------ cards

    def concerns(self, card: str) -> bool:
        """Whether a card's subject is that of the program, or general."""
        subject, own = cards.get(card).subject, self.study.family.like
        return not known(subject) or subject == own or {subject, own} == {"transformer", "recurrent"}

    def question(self, card: str, because: Fact | None) -> Iterator[Block]:
        """A standing question with the fact for which it applies; each is asked once in a reading."""
        if because is not None and card not in self._asked:
            self._asked.add(card)
            fact = self.study.add("card.applies", card, {"because": because.id}, like=because, kind="static")
            yield Question(cards.get(card), fact.id)

    def questions(self, names: Iterable[str], because: Fact | None) -> Iterator[Block]:
        for card in names:
            yield from self.question(card, because)
