"""The tutor: answers questions about a program, with or without a language model, and believes no word of a model.

A model answers in forms that can be decided (claims.py).  Names of the code (names.py) and what relates them
(relations.py) give the verdict on each, and our own sentence says it (verify.py).  conversation.py leads the dialogue.
"""

from bowerbird.reading.tutor.answer import Answer, Passage
from bowerbird.reading.tutor.claims import Claim
from bowerbird.reading.tutor.conversation import Conversation
from bowerbird.reading.tutor.endpoint import Endpoint
from bowerbird.reading.tutor.material import Material
from bowerbird.reading.tutor.verify import Verdict, verify

__all__ = ["Answer", "Claim", "Conversation", "Endpoint", "Material", "Passage", "Verdict", "verify"]
