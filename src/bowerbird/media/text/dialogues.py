"""Dialogues in the YAML of chatterbot-corpus: a list ``conversations`` of lists of utterances, turn about.

    conversations:
    - - Hello
      - Hi
      - How are you?
      - |
        Fine.

Read are plain, quoted and | utterances, as in YAML; nothing else of that language.  The first speaker is the user,
the second the assistant.
"""

import json
import re
import textwrap

from bowerbird.errors import BowerbirdError
from bowerbird.media.text.chat import ANSWERS, Message

ITEM = re.compile(r"(?P<first>- (?:- )?|  - ) *(?P<text>\S.*)")
"""A line that begins an utterance: "- - text" the first of a dialogue, "  - text" another."""
SPEAKERS = ("user", ANSWERS)


def parse(text: str, name: str) -> list[list[Message]]:
    """The dialogues, also those without an answer; errors name the line."""
    head, found, body = text.partition("conversations:\n")
    if not found:
        raise BowerbirdError(f"{name} has no list 'conversations' of dialogues.")
    dialogues: list[list[list[str]]] = []  # of utterances of lines
    for number, line in enumerate(body.split("\n"), head.count("\n") + 2):
        if item := ITEM.fullmatch(line.rstrip()):
            if item["first"].startswith("-"):
                dialogues.append([])
            if dialogues:
                dialogues[-1].append([item["text"]])
                continue
        if dialogues and (not line.strip() or line.startswith("   ")):
            dialogues[-1][-1].append(line)
        elif line.strip() and not line.lstrip().startswith("#"):
            raise BowerbirdError(
                f"{name}, line {number} is neither '- - text' nor '  - text' nor more of a text before it."
            )
    said = [[_text(lines, name) for lines in dialogue] for dialogue in dialogues]
    return [[{"role": SPEAKERS[i % 2], "content": one} for i, one in enumerate(dialogue)] for dialogue in said]


def _text(lines: list[str], name: str) -> str:
    """The utterance of its lines: a block after |, or lines folded into one and perhaps quoted."""
    if lines[0].startswith("|"):
        return textwrap.dedent("\n".join(lines[1:])).rstrip("\n")
    # YAML folds: the end of a line is a space; an empty line is the end of a paragraph.
    folded = re.sub(
        r"\n+", lambda ends: "\n" * (len(ends[0]) - 1) or " ", "\n".join(line.strip() for line in lines).strip()
    )
    quote = folded[0]
    if quote not in "'\"":
        return re.sub(r"\s+#.*", "", folded)
    if len(folded) < 2 or folded[-1] != quote:
        raise BowerbirdError(f"{name}: the quotation mark of {folded[:60]} is not closed.")
    if quote == "'":
        return folded[1:-1].replace("''", "'")
    try:
        return json.loads(folded, strict=False)
    except json.JSONDecodeError as error:
        raise BowerbirdError(f"{name}: {folded[:60]} cannot be read ({error}).") from error
