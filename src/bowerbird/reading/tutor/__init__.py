"""The tutor: answers questions about a program, with or without a language model, and checks every word of a model.

A model answers in claims (claims.py).  The verdict on each (verify.py) is computed from the program and its facts:
citations (citations.py), numbers (quantities.py, grounds.py, numerals.py), names (names.py), structure (derive.py,
predicates.py, relations.py), defects (the findings of ``check``), and that nothing is said which nothing cited shows
(wording.py).  conversation.py leads the dialogue.
"""

from bowerbird.reading.tutor.answer import Answer, Passage
from bowerbird.reading.tutor.claims import Claim
from bowerbird.reading.tutor.conversation import EXPLAIN, Conversation, language_of
from bowerbird.reading.tutor.endpoint import Endpoint
from bowerbird.reading.tutor.material import Material
from bowerbird.reading.tutor.verify import Verdict, verify

__all__ = [
    "EXPLAIN",
    "Answer",
    "Claim",
    "Conversation",
    "Endpoint",
    "Material",
    "Passage",
    "Verdict",
    "language_of",
    "verify",
]
