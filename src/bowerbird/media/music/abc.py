"""ABC: tunes written as text (the ABC standard, version 2.1), as far as one voice needs it.

Read are the key with its mode, metre, unit length and tempo, also where they change inside of a tune; notes with
accidentals, octaves, lengths, ties, broken rhythm (> and <), tuplets, chords, rests; repeats with their endings.
Chord symbols, grace notes, ornaments, slurs, part names and words are passed over.  A tune that begins with an upbeat
is moved so that its bar lines fall on whole bars.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

from bowerbird.media.music.score import (
    Meter,
    Note,
    Piece,
    Tempo,
    Voice,
    believable,
    from_beginning,
    from_beginning_tempos,
)

MELODY = Voice("melody")
LONGEST = 100_000
"""Steps of a tune with its repeats; what is longer does not end."""

_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTALS = {"^": 1, "^^": 2, "_": -1, "__": -2, "=": 0}
_SHARPS = "FCGDAEB"
"""The order in which a key takes its sharps; its flats come in the opposite order."""
_MODES = {
    "": 0,
    "maj": 0,
    "ion": 0,
    "lyd": 1,
    "mix": -1,
    "dor": -2,
    "m": -3,
    "min": -3,
    "aeo": -3,
    "phr": -4,
    "loc": -5,
}
"""How many sharps a mode has more than the major key of the same name."""
_TUPLETS = {2: 3, 3: 2, 4: 3, 6: 2, 8: 3}
"""So many notes in the time of how many; 5, 7 and 9 depend on the metre."""

_LENGTH = r"\d*(?:/+\d*)*"
_PITCH = re.compile(r"(\^\^?|__?|=)?([A-Ga-g])([,']*)")
_TOKEN = re.compile(
    r"\"[^\"]*\" | \{[^}]*\} | ![^!\s]*! | %.* | \\"  # chord symbols, grace notes, ornaments, comments
    r"| \[(?P<field>[A-Za-z]):(?P<value>[^\]]*)\]"
    r"| (?P<bar> :*\|+[:\]|]* | ::+ | \[\| ) (?:\s*\[?(?P<ending>\d)[\d,-]*)?"
    r"| \[(?P<late_ending>\d)[\d,-]*"
    r"| \((?P<tuplet>\d)(?::(?P<within>\d*))?(?::(?P<count>\d*))?"
    rf"| (?P<sound> \[[^\]|]*\] | (?:\^\^?|__?|=)?[A-Ga-g][,']* | [zxZ] ) (?P<length>{_LENGTH}) (?:[ \t]*(?P<tie>-))?"
    r"| (?P<broken> >+ | <+ )",
    re.VERBOSE,
)


def tunes(text: str) -> list[tuple[str, str]]:
    """The tunes of a file with their numbers: each begins with a line X:."""
    parts = re.split(r"^X:[ \t]*(\w*)", text, flags=re.M)
    numbered = list(zip(parts[1::2], parts[2::2], strict=True))
    return numbered or [("1", text)]


def read_tune(text: str) -> Piece:
    """The piece that a tune's text means; ValueError says, in a few words, why there is none."""
    reader = _Reader()
    for line in text.splitlines():
        if (found := re.match(r"([A-Za-z]):(?![|:])(.*)", line)) is not None:
            reader.read_field(found[1], found[2].split("%")[0].strip())
        elif not line.startswith("%"):
            reader.read_music(line)
    return _piece(reader.steps)


@dataclass
class _Step:
    """One thing that a tune says: a sound, a bar line, a change of metre or tempo."""

    pitches: tuple[int, ...] = ()
    duration: Fraction = Fraction(0)
    """In quarters."""
    tied: bool = False
    """The pitches go on in the next sound."""
    bar: str = ""
    """A bar line, as written."""
    ending: int = 0
    """The turn of a repeat that goes on after this bar line (0: every)."""
    change: Meter | Tempo | None = None


@dataclass
class _Reader:
    """What holds at one place of a tune."""

    key: dict[str, int] = field(default_factory=dict)
    meter: Meter = Meter(0.0, 4, 4)
    unit: Fraction | None = None
    """Unit length in quarters (None: as the metre says)."""
    altered: dict[str, int] = field(default_factory=dict)
    """Accidentals, which hold for a letter in all octaves until the next bar line."""
    held: dict[str, int] = field(default_factory=dict)
    """Accidentals of tied notes, which hold across it."""
    tuplet: tuple[int, Fraction] = (0, Fraction(1))
    """Sounds that it still has, and what their lengths are multiplied by."""
    broken: Fraction = Fraction(1)
    """What the next sound's length is multiplied by."""
    voice: str | None = None
    steps: list[_Step] = field(default_factory=list)

    def read_field(self, name: str, value: str) -> None:
        match name:
            case "K":
                self.key = _key(value)
                self._settle_unit()
            case "M":
                self.meter = _meter(value)
                self.steps.append(_Step(change=self.meter))
            case "L" if (found := re.match(r"(\d+)/(\d+)", value)) and int(found[2]):
                self.unit = Fraction(4 * int(found[1]), int(found[2]))
            case "Q" if (qpm := self._qpm(value)) is not None:
                self.steps.append(_Step(change=Tempo(0.0, qpm)))
            case "V":
                if self.voice not in (None, value.split()[0] if value else ""):
                    raise ValueError("with several voices")
                self.voice = value.split()[0] if value else ""

    def _settle_unit(self) -> Fraction:
        """Without L: the unit is an eighth, in metres shorter than 3/4 a sixteenth; later metres do not change it."""
        if self.unit is None:
            self.unit = Fraction(1, 2) if self.meter.quarters >= 3 else Fraction(1, 4)
        return self.unit

    def _qpm(self, value: str) -> float | None:
        if (found := re.search(r"(\d+)/(\d+)\s*=\s*(\d+)", value)) and int(found[2]):
            qpm = 4 * int(found[1]) / int(found[2]) * int(found[3])
        elif found := re.search(r"(\d+)\s*$", value):
            qpm = float(self._settle_unit() * int(found[1]))
        else:
            return None
        return qpm if 10 <= qpm <= 600 else None

    def read_music(self, line: str) -> None:
        for token in _TOKEN.finditer(line):
            if token["field"]:
                self.read_field(token["field"], token["value"].strip())
            elif token["bar"]:
                self.altered.clear()
                self.steps.append(_Step(bar=token["bar"], ending=int(token["ending"] or 0)))
            elif token["late_ending"]:
                if not self.steps or not self.steps[-1].bar:
                    self.steps.append(_Step(bar="|"))
                self.steps[-1].ending = int(token["late_ending"])
            elif token["tuplet"]:
                self._read_tuplet(int(token["tuplet"]), token["within"], token["count"])
            elif token["sound"]:
                self._read_sound(token["sound"], _length(token["length"]), bool(token["tie"]))
            elif token["broken"]:
                self._read_broken(token["broken"])

    def _read_tuplet(self, p: int, within: str | None, count: str | None) -> None:
        compound = self.meter.beats % 3 == 0 and self.meter.beats > 3
        q = int(within) if within else _TUPLETS.get(p, 3 if compound else 2)
        if p:
            self.tuplet = (int(count) if count else p, Fraction(q, p))

    def _read_sound(self, sound: str, length: Fraction, tied: bool) -> None:
        if sound == "Z":
            self.steps.append(_Step(duration=length * Fraction(self.meter.quarters)))
            return
        left, factor = self.tuplet
        self.tuplet = (left - 1, factor) if left > 1 else (0, Fraction(1))
        length *= factor * self.broken * self._settle_unit()
        self.broken = Fraction(1)
        if sound.startswith("["):
            # The lengths inside of a chord are those of its first note; [C2E2G2] is the usual way to write them.
            length *= _length(re.search(rf"[A-Ga-gzx][,']*({_LENGTH})|$", sound)[1] or "")  # type: ignore[index]
            tied = tied or "-" in sound
        notes = _PITCH.findall(sound)
        pitches = tuple(self._pitch(*note) for note in notes)
        self.held = {letter.upper(): self._alteration(letter.upper()) for _, letter, _ in notes if tied}
        self.steps.append(_Step(pitches, length, tied and bool(pitches)))

    def _pitch(self, accidental: str, letter: str, octave: str) -> int:
        if accidental:
            self.altered[letter.upper()] = _ACCIDENTALS[accidental]
        octaves = letter.islower() + octave.count("'") - octave.count(",")
        pitch = 60 + _SEMITONES[letter.upper()] + 12 * octaves + self._alteration(letter.upper())
        return min(max(pitch, 0), 127)

    def _alteration(self, letter: str) -> int:
        return self.altered.get(letter, self.held.get(letter, self.key.get(letter, 0)))

    def _read_broken(self, marks: str) -> None:
        """a>b: a is half longer, b half as long; with each further mark the shorter one is halved again."""
        short = Fraction(1, 2 ** len(marks))
        if self.steps and not self.steps[-1].bar:
            self.steps[-1].duration *= 2 - short if marks[0] == ">" else short
            self.broken = short if marks[0] == ">" else 2 - short


def _length(text: str) -> Fraction:
    """A factor on the unit length: "3", "3/2", "/" (1/2), "//" (1/4), "/4"; 1 for nothing."""
    numerator, *denominators = text.split("/")
    length = Fraction(int(numerator or 1))
    for denominator in denominators:
        length /= int(denominator or 2) or 1
    return length


def _key(value: str) -> dict[str, int]:
    """The accidental of each letter in a key such as "G", "Bb", "F#m", "D mix", "HP", "none"."""
    found = re.match(r"([A-G])([#b]?)\s*([A-Za-z]*)", value)
    if value.upper().startswith("HP"):
        sharps = 2
    elif found is None:
        sharps = 0
    else:
        mode = found[3].lower()
        sharps = _SHARPS.index(found[1]) - 1 + {"": 0, "#": 7, "b": -7}[found[2]]
        sharps += _MODES.get(mode if mode == "m" else mode[:3], 0)
    key = dict.fromkeys(_SHARPS[: max(sharps, 0)], 1)
    key |= dict.fromkeys(_SHARPS[::-1][: max(-sharps, 0)], -1)
    return key | {letter.upper(): _ACCIDENTALS[mark] for mark, letter in re.findall(r"(\^\^?|__?|=)([A-Ga-g])", value)}


def _meter(value: str) -> Meter:
    beats, _, unit = value.partition("/")
    if value.startswith("C"):
        return Meter(0.0, 2, 2) if value.startswith("C|") else Meter(0.0, 4, 4)
    if not (numbers := re.findall(r"\d+", beats)) or not re.match(r"\d+", unit):
        return Meter(0.0, 4, 4)
    return believable(Meter(0.0, sum(map(int, numbers)), int(re.match(r"\d+", unit)[0])))  # type: ignore[index]


# ------------------------------------------------------------------------------------------------------- playing


def _played(steps: list[_Step]) -> Iterator[_Step]:
    """The steps in the order in which they are heard.

    A repeat goes back to the last |: or, without one, to the last double bar or the beginning.
    """
    at, start, turn = 0, 0, 1
    explicit = in_ending = False
    for _ in range(LONGEST):
        if at >= len(steps):
            return
        step = steps[at]
        at += 1
        repeats = step.bar.startswith(":")
        if repeats and (turn == 1 or step.ending == turn + 1):
            at, turn, in_ending = start, turn + 1, False
            continue
        if not repeats and step.ending and step.ending != turn:
            later = [i for i in range(at, len(steps)) if steps[i].ending == turn]
            at, in_ending = (later[0] + 1 if later else len(steps)), True
            continue
        double = step.bar in ("||", "|]", "|||")
        if repeats or step.bar.endswith(":") or (double and (in_ending or (turn == 1 and not explicit))):
            start, turn, in_ending, explicit = at, 1, False, step.bar.endswith(":")
        yield step
    raise ValueError("with endless repeats")


def _piece(steps: list[_Step]) -> Piece:
    meters: list[Meter] = []
    tempos: list[Tempo] = []
    notes: list[Note] = []
    sounding: dict[int, int] = {}  # pitch → index of the note that is tied to the next one
    now = _before_upbeat(steps)
    for step in _played(steps):
        if isinstance(step.change, Meter):
            meters.append(step.change._replace(onset=float(now) if notes else 0.0))
        elif isinstance(step.change, Tempo):
            tempos.append(step.change._replace(onset=float(now) if notes else 0.0))
        if step.duration == 0:
            continue
        going_on = {}
        for pitch in step.pitches:
            if (i := sounding.get(pitch)) is not None:
                notes[i] = notes[i]._replace(duration=notes[i].duration + float(step.duration))
            else:
                i = len(notes)
                notes.append(Note(float(now), float(step.duration), pitch, 0))
            going_on[pitch] = i
        sounding = going_on if step.tied else {}
        now += step.duration
    if not notes:
        raise ValueError("without notes")
    return Piece(sorted(notes), (MELODY,), from_beginning(meters), from_beginning_tempos(tempos))


def _before_upbeat(steps: list[_Step]) -> Fraction:
    """How much of the first bar is missing, in quarters; 0 if the tune begins with a whole bar."""
    written, full = Fraction(0), Fraction(4)
    for step in steps:
        if isinstance(step.change, Meter) and not written:
            full = Fraction(step.change.quarters)
        if step.bar and written:
            return full - written if written < full else Fraction(0)
        written += step.duration
    return Fraction(0)
