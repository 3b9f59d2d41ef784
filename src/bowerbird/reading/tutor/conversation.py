"""A conversation about one program: questions, checked answers, memory.

A model's claims are judged one by one as they arrive.  Those that fail go back to it once, with the reasons; what fails
again is shown with its verdict.  Without a model the facts, findings and cards nearest to the question are the answer.
"""

import hashlib
import json
from collections.abc import Callable, Iterator

from bowerbird.reading.explain import cards
from bowerbird.reading.explain.steps.advice import remedies
from bowerbird.reading.findings import Finding
from bowerbird.reading.tutor.answer import Answer, Passage
from bowerbird.reading.tutor.claims import Claim, ClaimReader
from bowerbird.reading.tutor.endpoint import Endpoint, Message, Usage, tokens
from bowerbird.reading.tutor.material import Material, sentence
from bowerbird.reading.tutor.prompt import AGAIN, opening, repair
from bowerbird.reading.tutor.prose import ask_for_prose, chosen_facts, read_prose
from bowerbird.reading.tutor.retrieval import rank
from bowerbird.reading.tutor.show import say
from bowerbird.reading.tutor.verify import Verdict, verify
from bowerbird.reading.wording import Language, language_of

Show = Callable[[Verdict], None]
LONGEST_ANSWER_TOKENS = 3_000


class Conversation:
    def __init__(
        self, material: Material, endpoint: Endpoint | None = None, *, lang: Language | None = None,
        small: bool = False, context: int = 16_000,
    ) -> None:  # fmt: skip
        """``context`` is how many tokens the model takes in; ``small`` asks it only for prose around facts."""
        self.material, self.endpoint, self.lang, self.small, self.context = material, endpoint, lang, small, context
        self.history: list[Message] = []
        self._longest = min(LONGEST_ANSWER_TOKENS, context // 4)

    def ask(self, question: str, show: Show | None = None) -> Answer:
        """The answer to one question; ``show`` is given each verdict as soon as it stands."""
        lang = self.lang or language_of(question)
        if self.endpoint is None:
            return offline(self.material, question, lang)
        self.endpoint.usage = Usage()
        shown: Show = show or (lambda verdict: None)
        answer = None if self.small else self._with_claims(question, lang, shown)
        answer = answer or self._with_prose(question, lang, shown)
        kept = [v.claim.text for v in answer.verdicts if v.status in ("verified", "background")]
        self.history += [{"role": "user", "content": question}, {"role": "assistant", "content": " ".join(kept) or "-"}]
        return answer

    # ------------------------------------------------------------------------------------------------ claims

    def _with_claims(self, question: str, lang: Language, show: Show) -> Answer | None:
        """None when the model cannot answer in the form that is asked for, tried twice."""
        assert self.endpoint is not None
        room = self.context - self._longest
        remembered = self._remembered(room // 4)
        messages = opening(self.material, question, lang, room - sum(tokens(m["content"]) for m in remembered))
        messages += [*remembered, {"role": "user", "content": question}]
        for _ in range(2):
            reader = ClaimReader()
            verdicts = list(self._judged(messages, reader, lang, show))
            if verdicts:
                break
            messages = [*messages, Message(role="assistant", content=reader.text[:2_000] or "-"),
                        Message(role="user", content=AGAIN)]  # fmt: skip
        else:
            return None
        withdrawn = 0
        if failed := [v for v in verdicts if v.status in ("refuted", "unproven")]:
            again = [*messages, Message(role="assistant", content=reader.text[:8_000]), repair(failed)]
            verdicts, withdrawn = self._repaired(again, verdicts, lang, show)
        return Answer(question, lang, "claims", verdicts, usage=self.endpoint.usage, withdrawn=withdrawn)

    def _judged(self, messages: list[Message], reader: ClaimReader, lang: Language, show: Show) -> Iterator[Verdict]:
        """The verdicts as the answer streams in; those that hold are shown at once, the others may still be mended."""
        for claim in self._claims(messages, reader):
            if not claim.withdrawn:
                verdict = verify(claim, self.material, lang)
                if verdict.status in ("verified", "background"):
                    show(verdict)
                yield verdict

    def _claims(self, messages: list[Message], reader: ClaimReader) -> Iterator[Claim]:
        assert self.endpoint is not None
        for piece in self.endpoint.stream(messages, json_wanted=True, max_tokens=self._longest, about=self._digest()):
            yield from reader.feed(piece)

    def _repaired(
        self, messages: list[Message], verdicts: list[Verdict], lang: Language, show: Show
    ) -> tuple[list[Verdict], int]:
        """One round: a corrected claim takes the place of the one with its id, and is judged like any other."""
        new = {claim.id: claim for claim in self._claims(messages, ClaimReader())}
        result, withdrawn = [], 0
        for verdict in verdicts:
            claim = new.get(verdict.claim.id)
            if verdict.status in ("verified", "background"):
                result.append(verdict)
                continue
            if claim is not None and claim.withdrawn:
                withdrawn += 1
                continue
            final = verify(claim, self.material, lang) if claim is not None else verdict
            show(final)
            result.append(final)
        return result, withdrawn

    # ------------------------------------------------------------------------------------------------ prose

    def _with_prose(self, question: str, lang: Language, show: Show) -> Answer:
        assert self.endpoint is not None
        ids = chosen_facts(self.material, question, lang)
        messages = ask_for_prose(self.material, question, ids, lang)
        said = "".join(self.endpoint.stream(messages, json_wanted=False, max_tokens=300, about=self._digest()))
        verdicts = read_prose(said, self.material, ids, lang)
        for verdict in verdicts:
            show(verdict)
        return Answer(question, lang, "prose", verdicts, usage=self.endpoint.usage)

    def _remembered(self, room: int) -> list[Message]:
        """The last exchanges that fit, whole."""
        kept: list[Message] = []
        for i in range(len(self.history) - 2, -1, -2):
            pair = self.history[i : i + 2]
            room -= sum(tokens(m["content"]) for m in pair)
            if room < 0:
                break
            kept = pair + kept
        return kept

    def _digest(self) -> str:
        """What an answer depends on beside its prompt: every fact, so that new facts ask anew."""
        rows = [
            [f.topic, f.subject, f.line, f.value] for f in self.material.facts if not f.topic.startswith("run.program")
        ]
        return hashlib.sha256(json.dumps(rows, default=str).encode()).hexdigest()


def offline(material: Material, question: str, lang: Language) -> Answer:
    """The facts, findings and cards that have most to do with a question; the worst findings if nothing matches."""
    found = [f for f in material.findings if f.severity != "ok"]
    passages = [Passage(f"check {f.rule}", _told(f, lang), f.line) for f in found]
    passages += [Passage(f.id, sentence(f, lang), f.line) for f in material.telling()]
    asked = [p.text if lang == "en" else f"{p.text} {f.message}" for p, f in zip(passages, found, strict=False)]
    asked += [p.text for p in passages[len(found) :]]
    ranked = [passages[i] for _, i in rank(question, asked)][:6]
    known = [
        Passage(f"card {card.id}", f"{card.title(lang)}: {card.answer(lang)}") for card in cards.find(question, lang, 2)
    ]
    return Answer(question, lang, "offline", passages=[*known, *(ranked or passages[:4])])


def _told(finding: Finding, lang: Language) -> str:
    """A finding in the rule's own words, in Chinese in those that are known of the rule."""
    known = remedies().get(finding.rule) if lang == "zh" else None
    return f"{finding.message} {finding.fix}".strip() if known is None else say("remedy", lang, **known)
