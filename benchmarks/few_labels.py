"""How well digits are named with 100 labels: python benchmarks/few_labels.py LEARNING SEED [EXAMPLES].

Trains the recipe fewlabels on one thread and prints the share of the 2,000 test digits whose label the averaged
weights name, and the CPU seconds that training took, the loading of data and the previews with it.
"""

import sys
import tempfile
import time
from pathlib import Path

import bowerbird


def main(learning: str, seed: str, examples: str = "") -> None:
    settings = {"model.learning": learning, "train.seed": int(seed), "train.threads": 1}
    if examples:
        settings["train.examples"] = int(examples)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        run = bowerbird.train("fewlabels", Path(folder) / "run", **settings)
        seconds = time.process_time() - start
        ((found,),) = bowerbird.measure(run, n_samples=2, metrics=["label_accuracy"]).values()
    print(f"{learning}\tseed {seed}\t{found.value:.4f}\t{seconds:.0f} CPU s", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
