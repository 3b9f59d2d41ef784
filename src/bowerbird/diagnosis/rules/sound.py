"""Sound: output that is silent, clipped, or one noise whatever the spectrogram."""

from bowerbird.diagnosis.rule import Verdict, observed, rule
from bowerbird.diagnosis.signals import EARLY, Signals

SILENT_DB = -20.0
"""Level beside recordings below which output counts as silent."""
EMPTY = -0.6
"""The loudest number of spectrograms in [-1, 1] of which nothing is heard: 12 dB above the bottom."""
CLIPPED = 0.005
"""Share of samples beyond full scale, more than recordings have."""
COLLAPSED = 0.4
"""Of the changes of loudness that recordings have.  Vocoders that see the wrong spectrogram came to 0.3, small
healthy ones to 0.44 and more after 50 steps (``tests/broken_runs``)."""


@rule(
    "silent-output",
    "The output is (nearly) silent",
    "Yamamoto et al. 2020, arXiv:1910.11480, equation 5: silence has a spectral convergence of 1",
    explains=("vocoder-collapse", "mode-collapse", "learning-rate-too-low"),
)
def silent_output(s: Signals) -> Verdict | None:
    level, loudest = s.series("G/level_db").tail(0.2), s.probed("samples.max").tail(0.2)
    evidence = []
    if len(level) and s.used >= EARLY and level.median < SILENT_DB:
        evidence.append(observed(level, f"waveforms are {-level.median:.0f} dB below the recordings"))
    if s.run.data.modality == "speech" and len(loudest) and s.samples_count and loudest.median < EMPTY:
        text = f"the loudest number of all spectrograms is {loudest.median:.2f}, and -1 is silence"
        evidence.append(observed(loudest, text))
    advice = [
        "look at the recordings: bowerbird says how many are silent, and brings the others to one level",
        "lower the learning rate: one large step of the output layer can mute all frequencies at once",
    ]
    return Verdict(0.9, evidence, advice) if evidence else None


@rule(
    "clipping",
    "Waveforms go beyond full scale and are cut off",
    "Kong et al. 2020, arXiv:2010.05646, section 2.2 (a tanh keeps waveforms in range; here nothing does)",
)
def clipping(s: Signals) -> Verdict | None:
    beyond = s.series("G/beyond_full_scale").tail(0.2)
    if not len(beyond) or s.used < EARLY or beyond.median < CLIPPED:
        return None
    text = f"the share of samples beyond full scale is {beyond.median:.1%} higher than in recordings"
    advice = [
        "lower the learning rate: --train.lr; magnitudes are exponentials, which large steps make too loud",
        "give the spectra more weight: --model.spectral-weight 45",
    ]
    return Verdict(0.8, [observed(beyond, text)], advice)


@rule(
    "vocoder-collapse",
    "The vocoder makes one noise, whatever the spectrogram",
    "Siuzdak 2023, arXiv:2306.00814, section 3 (training objectives that keep to the spectrogram)",
    explains=("learning-rate-too-low",),
)
def vocoder_collapse(s: Signals) -> Verdict | None:
    dynamics = s.series("G/dynamics").tail(0.2)
    if not len(dynamics) or s.used < EARLY or s.step < 50 or dynamics.median > COLLAPSED:
        return None
    text = f"loudness changes {dynamics.median:.2f} times as much from moment to moment as in recordings"
    advice = [
        "give the spectra more weight: --model.spectral-weight 45, or leave out model.discriminator",
        "let the generator begin alone: --model.alone 1000",
    ]
    return Verdict(0.85, [observed(dynamics, text)], advice)
