"""Makes the texts that ship inside the package from the original files.

    python tools/pack_text.py shakespeare|tang|tang-5|tatoeba|names ORIGINAL OUT_FOLDER

A pack is the text itself inside xz, nothing added or taken away; tang-5 keeps the poems of five characters a
line.  Prints what the catalogue states of it.
"""

import argparse
import hashlib
import lzma
import re
from pathlib import Path

FILES = {
    "shakespeare": "shakespeare.txt.xz",
    "tang": "tang.txt.xz",
    "tang-5": "tang-5.txt.xz",
    "tatoeba": "tatoeba.tsv.xz",
    "names": "names.txt.xz",
}
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 22, "pb": 0, "lc": 4}]
FIVE_CHARACTER_POEM = re.compile(r"(\w{5}[，。？]){4}")
"""Four lines of five characters, a punctuation mark after each; no gaps, no notes of editors."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=FILES)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    lines = arguments.source.read_text(encoding="utf-8").splitlines(keepends=True)
    if arguments.what == "tang-5":
        lines = [line for line in lines if FIVE_CHARACTER_POEM.fullmatch(line.strip())]
    packed = lzma.compress("".join(lines).encode(), format=lzma.FORMAT_XZ, filters=FILTERS)
    path = arguments.out / FILES[arguments.what]
    path.write_bytes(packed)
    print(f'(File("{path.name}", {len(packed):_}, "{hashlib.sha256(packed).hexdigest()}"),),  {len(lines):,} lines')


if __name__ == "__main__":
    main()
