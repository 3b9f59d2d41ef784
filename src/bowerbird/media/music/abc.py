"""ABC: tunes written as text (the ABC standard, version 2.1), as far as notes need it.

Read are the key with its mode, explicit accidentals, octave, clef and transposition, metre, unit length and tempo, also
where they change inside of a tune; notes with accidentals, octaves, lengths, ties, broken rhythm (> and <), tuplets,
chords, rests; overlays (&), several voices (V:), repeats of any number with their endings, and the order of parts (P:).
Chord symbols, grace notes, decorations, slurs and words are passed over.  A tune that begins with an upbeat is moved so
that its bar lines fall on whole bars.  What would change the notes and is not read (jumps, macros, overlays of several
bars) is an error, so that a tune is read whole or not at all.
"""

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import compress, pairwise

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
LONGEST_PARTS = 1_000
"""Parts of a tune in the order in which they are played."""
LONGEST_NOTE = 1_000
"""Quarters."""

_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTALS = {"^": 1, "^^": 2, "_": -1, "__": -2, "=": 0}
_SHARPS = "FCGDAEB"
"""The order in which a key takes its sharps; its flats come in the opposite order."""
_MODES = {"maj": 0, "ion": 0, "lyd": 1, "mix": -1, "dor": -2, "min": -3, "aeo": -3, "phr": -4, "loc": -5}
"""How many sharps a mode has more than the major key of the same name."""
_TUPLETS = {2: 3, 3: 2, 4: 3, 6: 2, 8: 3}
"""So many notes in the time of how many; 5, 7 and 9 depend on the metre."""

_LENGTH = r"\d*(?:/+\d*)*"
_ENDING = r"\d+(?:[,.-]\d+)*"
_PITCH = re.compile(rf"(\^\^?|__?|=)?([A-Ga-g])([,']*){_LENGTH}(-)?")
_ACCIDENTAL_OF_KEY = re.compile(r"(?<!\S)(\^\^?|__?|=)([A-Ga-g])(?![A-Za-z])")
_CLEF = re.compile(r"(?<!\S)(?:clef\s*=\s*\"?[A-Za-z]+|treble|alto|tenor|bass|perc)[1-5]?([+-](?:8|15)\b)?")
_PASSED_OVER_IN_CHORDS = re.compile(r"\"[^\"]*\" | ![^!]*! | \+[a-z]+\+", re.VERBOSE)
_NOTE = rf"(?:\^\^?|__?|=)?[A-Ga-gz][,']*{_LENGTH}"
_BROKEN_LINE = re.compile(rf"!(?=(?!f+!)(?:{_NOTE}){{2,}}!)")
"""A line break of older tunes, where the next ! is one too."""
_OLD_CHORD = re.compile(rf"\+((?!f+\+)(?:{_NOTE}){{2,}})\+")
_JUMP = re.compile(r"D\.?[CS]\.?|da|(to)?coda")
_BLOCK = re.compile(r"^%%begin(\w+).*?^%%end\1", re.MULTILINE | re.DOTALL)
_TOKEN = re.compile(
    r"\"[^\"]*\" | \{[^}]*\} | %.* | \\"  # chord symbols, grace notes, comments
    r"| !(?P<decoration>[^!\s|]*)! | \+[^+\s|]*\+"
    r"| \[(?P<field>[A-Za-z]):(?P<value>[^\]]*)\]"
    rf"| (?P<bar> :*\|+[:\]|]* | ::+ | \[\|[:\]]* ) (?:\s*\[?(?P<ending>{_ENDING}))?"
    rf"| \[(?P<late_ending>{_ENDING})"
    r"| \((?P<tuplet>\d)(?::(?P<within>\d*))?(?::(?P<count>\d*))?"
    rf"| (?P<sound> \[[^\]|]*\] | (?:\^\^?|__?|=)?[A-Ga-g][,']* | [zxZX] ) (?P<length>{_LENGTH}) (?:[ \t]*(?P<tie>-))?"
    r"| (?P<broken> >+ | <+ )"
    r"| (?P<overlay> \(?&+ \)? )",
    re.VERBOSE,
)


def tunes(text: str) -> list[tuple[str, str]]:
    """The tunes of a file with their numbers: each begins with a line X:; fields before the first hold for all."""
    opening, *parts = re.split(r"^X:[ \t]*(\w*)", text, flags=re.MULTILINE)
    header = "".join(f"{line}\n" for line in opening.splitlines() if re.match(r"[A-JL-UW-Za-z]:", line))
    numbered = [(number, header + tune) for number, tune in zip(parts[::2], parts[1::2], strict=True)]
    return numbered or [("1", text)]


def read_tune(text: str) -> Piece:
    """The piece that a tune's text means; ValueError says, in a few words, why there is none."""
    tune = _Tune()
    over = False
    for line in _BLOCK.sub("", text).splitlines():
        over = over or (tune.in_body and not line.strip())
        if not over or "|" in line:  # free text may follow the empty line that ends a tune
            tune.read_line(line)
    return _piece(tune)


@dataclass
class _Step:
    """One thing that a voice says: a sound, a bar line, an overlay, a part, a change of metre or tempo."""

    pitches: tuple[int, ...] = ()
    duration: Fraction = Fraction(0)
    """In quarters."""
    tied: frozenset[int] = frozenset()
    """The pitches that go on in the next sound."""
    bar: str = ""
    """A bar line, as written."""
    endings: frozenset[int] = frozenset()
    """The turns of a repeat that go on after this bar line (none: every)."""
    overlay: bool = False
    """What follows begins where the bar began."""
    part: str = ""
    """The part that begins here."""
    change: Meter | Tempo | None = None

    @property
    def repeats(self) -> int:
        """How many times more the section that ends here is played."""
        return 1 if set(self.bar) == {":"} else len(self.bar) - len(self.bar.lstrip(":"))

    @property
    def opens(self) -> int:
        """How many times more the section that begins here is played."""
        return 1 if set(self.bar) == {":"} else len(self.bar) - len(self.bar.rstrip(":"))

    @property
    def double(self) -> bool:
        return self.bar in ("||", "|]", "|||", "[|")


@dataclass
class _Voice:
    """What holds at one place of a voice."""

    key: dict[str, int] = field(default_factory=dict)
    shifts: dict[str, int] = field(default_factory=dict)
    """Semitones by which notes sound higher than written, of "clef", "octave" and "transpose"."""
    meter: Meter = Meter(0.0, 4, 4)
    unit: Fraction | None = None
    """Unit length in quarters (None: as the metre says)."""
    altered: dict[str, int] = field(default_factory=dict)
    """Accidentals, which hold for a letter in all octaves until the next bar line."""
    layer: int = 0
    """Overlays of this bar so far."""
    held: dict[int, dict[str, int]] = field(default_factory=dict)
    """Accidentals of the tied notes of each layer, which hold across the bar line."""
    tuplet: tuple[int, Fraction] = (0, Fraction(1))
    """Sounds that it still has, and what their lengths are multiplied by."""
    broken: Fraction = Fraction(1)
    """What the next sound's length is multiplied by."""
    steps: list[_Step] = field(default_factory=list)

    def read_field(self, name: str, value: str) -> None:
        match name:
            case "K":
                self.key = _key(value, self.key)
                self.shift(value)
                self._settle_unit()
            case "M":
                self.meter = _meter(value)
                self.steps.append(_Step(change=self.meter))
            case "L" if (found := re.match(r"(\d+)(?:/(\d+))?", value)) and int(found[2] or 1) and int(found[1]):
                self.unit = Fraction(4 * int(found[1]), int(found[2] or 1))
            case "Q" if (qpm := self._qpm(value)) is not None:
                self.steps.append(_Step(change=Tempo(0.0, qpm)))
            case "P" if value:
                self.steps.append(_Step(part=value[0]))

    def shift(self, value: str) -> None:
        """Reads clef, octave and transposition of a field K: or V:; ``middle`` and ``stafflines`` only draw."""
        for name, number in re.findall(r"(?<!\S)(octave|transpose|t)\s*=\s*([+-]?\d+)", value):
            self.shifts["octave" if name == "octave" else "transpose"] = int(number) * (12 if name == "octave" else 1)
        if found := _CLEF.search(value):
            self.shifts["clef"] = {"+8": 12, "-8": -12, "+15": 24, "-15": -24}.get(found[1] or "", 0)
        if found := re.search(r"(?<!\S)(sound|shift|score|instrument)\s*=", value):
            raise ValueError(f"with {found[1]}=, which is not read")

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

    def read_token(self, token: re.Match[str]) -> None:
        """One token of a line of music, other than a field."""
        if token["bar"]:
            self._read_bar(token["bar"], _turns(token["ending"]))
        elif token["late_ending"]:
            self._read_bar("", _turns(token["late_ending"]))
        elif token["tuplet"]:
            self._read_tuplet(int(token["tuplet"]), token["within"], token["count"])
        elif token["sound"]:
            self._read_sound(token["sound"], _length(token["length"]), bool(token["tie"]))
        elif token["broken"]:
            self._read_broken(token["broken"])
        elif token["overlay"]:
            self._read_overlay(token["overlay"])

    def _read_bar(self, bar: str, endings: frozenset[int]) -> None:
        """A bar line, or an ending that begins without one; an ending may stand apart from its bar line."""
        self.altered.clear()
        self.layer = 0
        last = self.steps[-1] if self.steps else _Step()
        if endings and last.bar and not last.endings and not bar.strip("|[]"):
            last.endings = endings
        else:
            self.steps.append(_Step(bar=bar or "|", endings=endings))

    def _read_overlay(self, mark: str) -> None:
        if mark.strip() != "&":
            raise ValueError("with overlays of several bars")
        self.altered.clear()
        self.layer += 1
        self.steps.append(_Step(overlay=True))

    def _read_tuplet(self, p: int, within: str | None, count: str | None) -> None:
        compound = self.meter.beats % 3 == 0 and self.meter.beats > 3
        q = int(within) if within else _TUPLETS.get(p, 3 if compound else 2)
        if p and q:
            self.tuplet = (int(count) if count else p, Fraction(q, p))

    def _read_sound(self, sound: str, length: Fraction, tied: bool) -> None:
        if sound in "ZX":
            self.steps.append(_Step(duration=length * Fraction(self.meter.quarters)))
            return
        left, factor = self.tuplet
        self.tuplet = (left - 1, factor) if left > 1 else (0, Fraction(1))
        length *= factor * self.broken * self._settle_unit()
        self.broken = Fraction(1)
        if sound.startswith("["):
            sound = _PASSED_OVER_IN_CHORDS.sub("", sound)
            # The lengths inside of a chord are those of its first note; [C2E2G2] is the usual way to write them.
            length *= _length(re.search(rf"[A-Ga-gzx][,']*({_LENGTH})|$", sound)[1] or "")  # type: ignore[index]
        if length > LONGEST_NOTE:
            raise ValueError("with endless notes")
        notes = _PITCH.findall(sound)
        pitches = tuple(self._pitch(*note) for *note, _ in notes)
        ties = [tied or bool(tie) for *_, tie in notes]
        letters = [letter.upper() for _, letter, *_ in notes]
        self.held[self.layer] = {letter: self._alteration(letter) for letter in compress(letters, ties)}
        self.steps.append(_Step(pitches, length, frozenset(compress(pitches, ties))))

    def _pitch(self, accidental: str, letter: str, octave: str) -> int:
        if accidental:
            self.altered[letter.upper()] = _ACCIDENTALS[accidental]
        octaves = letter.islower() + octave.count("'") - octave.count(",")
        written = 60 + _SEMITONES[letter.upper()] + 12 * octaves + self._alteration(letter.upper())
        pitch = written + sum(self.shifts.values())
        if not 0 <= pitch <= 127:
            raise ValueError("with notes outside MIDI's range")
        return pitch

    def _alteration(self, letter: str) -> int:
        held = self.held.get(self.layer, {})
        return self.altered.get(letter, held.get(letter, self.key.get(letter, 0)))

    def _read_broken(self, marks: str) -> None:
        """a>b: a is half longer, b half as long; with each further mark the shorter one is halved again."""
        short = Fraction(1, 2 ** min(len(marks), 8))
        if self.steps and self.steps[-1].duration:
            self.steps[-1].duration *= 2 - short if marks[0] == ">" else short
            self.broken = short if marks[0] == ">" else 2 - short


@dataclass
class _Tune:
    """The voices of a tune, as far as it is read."""

    header: _Voice = field(default_factory=_Voice)
    """What every voice begins with."""
    voices: dict[str, _Voice] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)
    """What the header says about each voice."""
    order: str = ""
    """The order of the parts."""
    in_body: bool = False
    voice: str = ""
    """The one that is being read."""

    def read_line(self, line: str) -> None:
        if (found := re.match(r"([A-Za-z]):(?![|:])(.*)", line)) is not None:
            self.read_field(found[1], found[2].split("%")[0].strip())
        elif not line.startswith(("%", "+:")):
            self._read_music(line)

    def read_field(self, name: str, value: str) -> None:
        if name == "m":
            raise ValueError("with macros")
        if name == "V":
            self._read_voice(*(value.split(maxsplit=1) or [""]))
        elif self.in_body:
            self._current().read_field(name, value)
        elif name == "P":
            self.order = value
        else:
            self.header.read_field(name, value)
            self.in_body = name == "K"

    def _read_voice(self, name: str, properties: str = "") -> None:
        if self.in_body:
            self.voice = name
            self._current().shift(properties)
        else:
            self.properties[name] = properties

    def _current(self) -> _Voice:
        if self.voice not in self.voices:
            self.voices[self.voice] = copy.deepcopy(self.header)
            self.voices[self.voice].shift(self.properties.get(self.voice, ""))
        return self.voices[self.voice]

    def _read_music(self, line: str) -> None:
        if not line.strip():
            return
        self.in_body = True
        line = _OLD_CHORD.sub(r"[\1]", _BROKEN_LINE.sub("", line))
        for token in _TOKEN.finditer(line):
            if token["field"]:
                self.read_field(token["field"], token["value"].strip())
            elif token["decoration"] and _JUMP.match(token["decoration"]):
                raise ValueError(f"with a jump ({token['decoration']})")
            else:
                self._current().read_token(token)


def _turns(text: str | None) -> frozenset[int]:
    """The turns that an ending is for: "1", "1,3", "1-3,5"."""
    turns: set[int] = set()
    for part in re.split(r"[,.]", text or ""):
        first, _, last = part.partition("-")
        turns |= set(range(int(first), min(int(last or first), int(first) + 99) + 1)) if first else set()
    return frozenset(turns)


def _length(text: str) -> Fraction:
    """A factor on the unit length: "3", "3/2", "/" (1/2), "//" (1/4), "/4"; 1 for nothing."""
    numerator, *denominators = text.split("/")
    if len(text) > 12:
        raise ValueError("with endless notes")
    length = Fraction(int(numerator or 1))
    for denominator in denominators:
        length /= int(denominator or 2) or 1
    return length


def _key(value: str, before: dict[str, int]) -> dict[str, int]:
    """The accidental of each letter in a key such as "G", "Bb", "F#m", "D mix", "D exp ^f", "HP", "none"."""
    found = re.match(r"([A-G])([#b]?)[ \t]*(exp\b|m(?![a-z])|[A-Za-z]{3,})?", value)
    own = {letter.upper(): _ACCIDENTALS[mark] for mark, letter in _ACCIDENTAL_OF_KEY.findall(value)}
    if value.upper().startswith("HP"):
        sharps = 2
    elif found is not None:
        mode = (found[3] or "").lower()
        if mode == "exp":
            return own
        sharps = _SHARPS.index(found[1]) - 1 + {"": 0, "#": 7, "b": -7}[found[2]]
        sharps += -3 if mode == "m" else _MODES.get(mode[:3], 0)
    elif value.lower().startswith("none") or not value:
        sharps = 0
    else:
        return before | own  # a clef alone
    key = dict.fromkeys(_SHARPS[: max(sharps, 0)], 1)
    key |= dict.fromkeys(_SHARPS[::-1][: max(-sharps, 0)], -1)
    return key | own


def _meter(value: str) -> Meter:
    beats, _, unit = value.partition("/")
    if value.startswith("C"):
        return Meter(0.0, 2, 2) if value.startswith("C|") else Meter(0.0, 4, 4)
    if not (numbers := re.findall(r"\d{1,4}", beats)) or not re.match(r"\d{1,4}", unit):
        return Meter(0.0, 4, 4)
    return believable(Meter(0.0, sum(map(int, numbers)), int(re.match(r"\d{1,4}", unit)[0])))  # type: ignore[index]


# ------------------------------------------------------------------------------------------------------- playing


def _in_order(steps: list[_Step], order: str) -> list[_Step]:
    """The steps with their parts in the order of the header, such as "AABB", "A2(BC)2"."""
    starts = [i for i, step in enumerate(steps) if step.part] + [len(steps)]
    parts = {steps[i].part: steps[i:j] for i, j in pairwise(starts)}
    while (found := re.search(r"\(([^()]*)\)(\d*)|([A-Z])(\d+)", order)) and len(order) < LONGEST_PARTS:
        order = order.replace(found[0], (found[1] or found[3] or "") * min(int(found[2] or found[4] or 1), 99), 1)
    wanted = [letter for letter in order if letter.isalpha()]
    if len(order) >= LONGEST_PARTS or (parts and not set(wanted) <= set(parts)):
        raise ValueError("with an order that names missing parts")
    if not wanted or not parts:
        return steps
    return steps[: starts[0]] + [step for letter in wanted for step in (*parts[letter], _Step(bar="||"))]


def _played(steps: list[_Step]) -> Iterator[_Step]:
    """The steps in the order in which they are heard.

    A repeat goes back to the last |: or, without one, to the last double bar or the beginning.
    """
    at, start, turn, opened = 0, 0, 1, 0
    in_ending = False
    for _ in range(LONGEST):
        if at >= len(steps):
            return
        step = steps[at]
        at += 1
        if not step.bar:
            yield step
            continue
        leaves = bool(step.endings) and turn not in step.endings
        if leaves and not (step.repeats or in_ending):
            at, in_ending = _ending(steps, at, turn), True
            continue
        if (step.repeats and not step.endings and turn < _times(steps, start, at, opened)) or leaves:
            at, turn, in_ending = start, turn + 1, False
            continue
        closes = step.repeats or step.opens or (step.double and (in_ending or (turn == 1 and not opened)))
        in_ending = bool(step.endings) or (in_ending and not closes)
        if closes and not step.endings:
            start, turn, opened = at, 1, step.opens
        yield step
    raise ValueError("with endless repeats")


def _times(steps: list[_Step], start: int, end: int, opened: int) -> int:
    """How often the section between two bar lines is played."""
    last_ending = max((max(step.endings) for step in steps[start:end] if step.endings), default=0)
    return last_ending or 1 + max(opened, steps[end - 1].repeats)


def _ending(steps: list[_Step], at: int, turn: int) -> int:
    """Where the ending of a turn begins; without one, what follows the section."""
    for i in range(at, len(steps)):
        if turn in steps[i].endings:
            return i + 1
        if steps[i].bar and not steps[i].endings and (steps[i].repeats or steps[i].opens or steps[i].double):
            return i + 1
    return len(steps)


def _piece(tune: _Tune) -> Piece:
    voices = {name: voice for name, voice in tune.voices.items() if any(step.pitches for step in voice.steps)}
    if not voices:
        raise ValueError("without notes")
    _check_alike(list(voices.values()))
    meters: list[Meter] = []
    tempos: list[Tempo] = []
    notes: list[Note] = []
    upbeat = _before_upbeat(next(iter(voices.values())).steps)
    for number, voice in enumerate(voices.values()):
        _play(_in_order(voice.steps, tune.order), upbeat, number, notes, meters, tempos)
    names = tuple(Voice(f"voice {name}") for name in voices) if len(voices) > 1 else (MELODY,)
    return Piece(sorted(notes), names, from_beginning(meters), from_beginning_tempos(tempos, min(notes)))


def _check_alike(voices: Sequence[_Voice]) -> None:
    """All voices must say the same repeats, else they would not be together."""
    forms = [[(s.repeats, s.endings, s.opens) for s in v.steps if s.repeats or s.endings or s.opens] for v in voices]
    if any(form != forms[0] for form in forms):
        raise ValueError("with different repeats in its voices")


def _play(
    steps: list[_Step], start: Fraction, voice: int, notes: list[Note], meters: list[Meter], tempos: list[Tempo]
) -> None:
    """Appends what is heard of a voice that begins at ``start``."""
    now = bar = furthest = start
    layer = 0
    sounding: dict[int, dict[int, int]] = {}  # layer → pitch → index of the note that is tied to the next one
    first = len(notes)
    for step in _played(steps):
        onset = float(now) if len(notes) > first else 0.0
        if isinstance(step.change, Meter):
            meters.append(step.change._replace(onset=onset))
        elif isinstance(step.change, Tempo):
            tempos.append(step.change._replace(onset=onset))
        elif step.bar:
            now = bar = furthest = max(now, furthest)
            sounding = {number: tied for number, tied in sounding.items() if number <= layer}
            layer = 0
        elif step.overlay:
            furthest, now, layer = max(now, furthest), bar, layer + 1
        elif step.duration:
            going_on = {}
            tied_to = sounding.get(layer, {})
            for pitch in step.pitches:
                if (i := tied_to.get(pitch)) is not None:
                    notes[i] = notes[i]._replace(duration=notes[i].duration + float(step.duration))
                else:
                    i = len(notes)
                    notes.append(Note(float(now), float(step.duration), pitch, voice))
                if pitch in step.tied:
                    going_on[pitch] = i
            sounding[layer] = going_on
            now += step.duration


def _before_upbeat(steps: list[_Step]) -> Fraction:
    """How much of the first bar is missing, in quarters; 0 if the tune begins with a whole bar."""
    written, full = Fraction(0), Fraction(4)
    for step in steps:
        if isinstance(step.change, Meter) and not written:
            full = Fraction(step.change.quarters)
        if (step.bar or step.overlay) and written:
            return full - written if written < full else Fraction(0)
        written += step.duration
    return Fraction(0)
