"""Which family a program belongs to, by what it does and what its text says; every reason is kept."""

import re

from bowerbird.reading.explain.study import Study
from bowerbird.reading.facts import Fact

FAMILIES = ("gan", "vae", "diffusion", "transformer", "recurrent", "classifier")
_WORDS: dict[str, tuple[tuple[str, int], ...]] = {
    "gan": (
        (r"\bdiscriminator\b|\bcritic\b|netD\b", 2), (r"\bgenerator\b|netG\b", 1), (r"\bgan\b|adversarial", 1),
    ),
    "vae": ((r"logvar|log_var", 2), (r"reparam", 2), (r"\bvae\b", 2), (r"\bkld?\b|kl_div|kl_to", 1), (r"encode", 1)),
    "diffusion": (
        (r"alphas?_cumprod|alpha_bar|alpha_hat", 3), (r"q_sample|noise_images|add_noise|p_losses", 2),
        (r"\bbetas\b", 1),
        (r"diffusion|ddpm|denois", 2), (r"time_?steps?|noise_steps", 1),
    ),
    "transformer": (
        (r"attention|MultiheadAttention|TransformerEncoder", 2), (r"n_head|num_heads|nhead", 2),
        (r"\bgpt\b|transformer", 2),
        (r"softmax", 1), (r"block_size|seq_len|max_len", 1),
    ),
    "recurrent": ((r"nn\.(LSTM|GRU|RNN)\b|nn\.(LSTM|GRU|RNN)Cell", 4), (r"\bhidden\b", 1)),
    "classifier": ((r"CrossEntropyLoss|cross_entropy|nll_loss", 2), (r"accuracy|correct", 1)),
}  # fmt: skip
_LEAST = 3


def note(study: Study) -> Fact:
    """Adds ``program.family``: the family with most behind it, ``other`` where little speaks for any."""
    text = "\n".join(study.source.texts[file] for file in study.files)
    scores: dict[str, int] = {}
    reasons: dict[str, list[str]] = {}
    for family, words in _WORDS.items():
        for pattern, weight in words:
            found = re.search(pattern, text, re.IGNORECASE)
            if found:
                scores[family] = scores.get(family, 0) + weight
                reasons.setdefault(family, []).append(found[0])
    for family, reason in _behaviour(study):
        scores[family] = scores.get(family, 0) + 4
        reasons.setdefault(family, []).append(reason)
    best = max(scores, key=lambda f: (scores[f], -FAMILIES.index(f)), default="other")
    if scores.get(best, 0) < _LEAST:
        best = "other"
    return study.add("program.family", best, {"scores": scores, "reasons": reasons.get(best, [])[:6]}, file=study.file)


def _behaviour(study: Study) -> list[tuple[str, str]]:
    """What the run showed that only one family does."""
    found = []
    owners = [set(f["owners"] or {}) for f in study.facts.of("optimizer.created")]
    apart = any(a and b and not a & b for i, a in enumerate(owners) for b in owners[i + 1 :])
    crossed = any(len({row["module"] for row in f["through"] or []}) > 1 for f in study.facts.of("event.backward"))
    if apart and crossed:
        found.append(("gan", "two optimisers own different networks, and one loss goes through both"))
    if study.facts.first("probe.schedule") is not None:
        found.append(("diffusion", "it has a noise schedule"))
    return found
