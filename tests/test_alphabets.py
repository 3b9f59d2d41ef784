"""Texts in alphabets of one byte per character: what encoding they are in is found in one short sentence."""

import tomllib
from pathlib import Path

from bowerbird.data.encodings import of_text

ALPHABETS = tomllib.loads((Path(__file__).parent / "data" / "alphabets.toml").read_text(encoding="utf-8"))


def test_nineteen_of_twenty_sentences_are_offered_in_their_encoding_and_nine_of_ten_first() -> None:
    """Encodings in which a sentence has the same bytes count once."""
    written = {
        (sentence.encode(encoding), sentence)
        for alphabet in ALPHABETS.values()
        for encoding in alphabet["encodings"]
        for sentence in alphabet["sentences"]
    }
    read = [
        [raw.decode(encoding, errors="replace") == sentence for encoding in of_text(raw, is_head=True)]
        for raw, sentence in written
    ]
    assert len(read) >= 120
    assert sum(map(any, read)) >= 0.95 * len(read)
    assert sum(offers[:1] == [True] for offers in read) >= 0.9 * len(read)
    assert max(map(len, read)) <= 6


def test_encodings_in_which_a_text_reads_the_same_are_offered_once() -> None:
    assert of_text("Les élèves étudient à la bibliothèque.\n".encode("cp1254"), is_head=True)[0] == "cp1252"
    assert of_text("猫は窓のそばで寝ています。\n".encode("cp932"), is_head=True) == ["shift_jis"]
