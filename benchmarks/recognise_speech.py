"""The digit and the speaker of generated words, judged by a network that learnt both from the training recordings.

python benchmarks/recognise_speech.py RECORDINGS FOLDER …

RECORDINGS is the Free Spoken Digit Dataset, FOLDER what ``judge_speech.py make`` wrote.  The network is none of those
that bowerbird measures with; it sees each word as it is heard, the spectrogram of its waveform.  Beside them stands
what it makes of the test recordings (index below 5), as they are and through mel bands and Griffin-Lim.
"""

import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from bowerbird import config
from bowerbird.media import open_data
from bowerbird.media.speech.soundset import SoundData, SoundSet
from bowerbird.media.speech.spectrogram import Mel

EPOCHS, BATCH, DIGITS = 14, 64, 10


def block(n_in: int, n_out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(n_in, n_out, 3, stride=2, padding=1), nn.GroupNorm(4, n_out), nn.ReLU())


def recogniser(n_speakers: int) -> nn.Sequential:
    """(n, 1, 64, 64) spectrograms to logits of the digits, then of the speakers; 77 thousand parameters."""
    head = nn.Linear(64 * 4 * 4, DIGITS + n_speakers)
    last = (nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d((4, 4)), nn.Flatten(), nn.Dropout(0.3))
    return nn.Sequential(block(1, 16), block(16, 32), block(32, 64), *last, head).to(memory_format=torch.channels_last)


def words(recordings: SoundSet, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    batch = recordings.batch(indices)
    return batch["x"], batch["given"]["digit"], batch["given"]["speaker"]


def trained(data: SoundData) -> nn.Module:
    """After ``EPOCHS`` passes, on words with a little noise, up to four frames early or late."""
    net = recogniser(len(data.spec.given["speaker"].names))
    steps = EPOCHS * (len(data.train) // BATCH)
    optimiser = torch.optim.AdamW(net.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(data.train)).split(BATCH):
            if len(rows) == BATCH:
                x, digit, speaker = words(data.train, rows)
                x = (x + 0.05 * torch.randn_like(x)).roll(int(torch.randint(-4, 5, ())), 3)
                logits = net(x.contiguous(memory_format=torch.channels_last))
                loss = F.cross_entropy(logits[:, :DIGITS], digit) + F.cross_entropy(logits[:, DIGITS:], speaker)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
    return net.eval()


@torch.no_grad()
def judged(net: nn.Module, x: Tensor, digit: Tensor, speaker: Tensor) -> str:
    logits = net(x)
    right = {"digit": logits[:, :DIGITS].argmax(1) == digit, "speaker": logits[:, DIGITS:].argmax(1) == speaker}
    return ", ".join(f"{name} {int(one.sum())} of {len(x)} ({one.float().mean():.1%})" for name, one in right.items())


def main(recordings: str, *folders: str) -> None:
    torch.manual_seed(0)
    names = config.Speech(pattern="{digit}_{speaker}_{index}", test="index<5")
    data = open_data(config.Data(recordings, modality="speech", given=("digit", "speaker"), speech=names))
    mel = Mel.from_json(data.spec.codec)
    start = time.process_time()
    net = trained(data)
    print(f"trained in {time.process_time() - start:.0f} CPU s")

    def heard(x: Tensor) -> Tensor:
        return mel.encoded(mel.decoded(x[:, 0]))[:, None]

    x, digit, speaker = words(data.test, torch.arange(len(data.test)))
    print("real:", judged(net, x, digit, speaker))
    print("real through Griffin-Lim:", judged(net, heard(x[::3]), digit[::3], speaker[::3]))
    for folder in folders:
        made = load_file(Path(folder) / "words.safetensors")
        print(f"{folder}:", judged(net, heard(made["x"]), made["digit"], made["speaker"]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
