"""Moving pictures: clips that do not move, and clips that change without moving."""

from bowerbird.diagnosis.rule import Verdict, observed, rule
from bowerbird.diagnosis.signals import Signals

FROZEN = 0.1
"""Of the change from frame to frame that real clips have …"""
CERTAIN = 0.03


@rule(
    "frozen-motion",
    "The clips hardly move: every frame repeats the one before",
    "Blattmann et al. 2023, arXiv:2311.15127, section 3.1 (static clips are taken out of the data by their motion)",
    explains=("mode-collapse",),
)
def frozen_motion(s: Signals) -> Verdict | None:
    motion = s.probed("samples.motion")
    if not len(motion) or not s.samples_count:
        return None
    late = motion.tail(0.2)
    if late.median > FROZEN or s.probed("samples.diversity").tail(0.2).median < 0.02:
        return None
    text = f"neighbouring frames differ {late.median:.3f} times as much as in the data (mean squares)"
    advice = [
        "look whether the network mixes frames at all: for spacetime, that no attention in time is frozen or removed",
        "train longer; or look at lower rates, where neighbouring frames differ more: --data.video.rate-hz 4",
    ]
    return Verdict(0.9 if late.median < CERTAIN else 0.75, [observed(late, text)], advice)


FLICKER = 3.0
"""Times what motion leaves unexplained in real clips …"""
FLICKER_CERTAIN = 8.0


@rule(
    "flicker",
    "The clips flicker or dissolve: they change where nothing moves",
    "Ge et al. 2023, arXiv:2305.10474, section 3.2 (frames whose noise is independent are drawn apart)",
)
def flicker(s: Signals) -> Verdict | None:
    found = s.probed("samples.flicker")
    if not len(found) or not s.samples_count:
        return None
    late = found.tail(0.2)
    if late.median < FLICKER:
        return None
    text = f"what is left when blocks of pixels may move is {late.median:.1f} times that of the data (mean squares)"
    advice = [*_steadier(s), "train longer, or at a smaller --data.size"]
    return Verdict(0.9 if late.median > FLICKER_CERTAIN else 0.75, [observed(late, text)], advice)


def _steadier(s: Signals) -> list[str]:
    """What makes frames agree, by how the family at hand makes them."""
    moved = 'move the first frame in place of drawing frames: family = "animation", as in emoji-motion'
    if s.option("past") is not None:  # frame by frame
        return ["practise high noise, where only the frames before can be seen: --model.frame.time-mean 2", moved]
    if s.option("prior") is not None:  # a picture moved by codes
        return ["sample with less noise, which also calms the motion: --temperature 0.7"]
    return ['make clips frame by frame, each from those before it: family = "rollout", as in bouncing-digits', moved]
