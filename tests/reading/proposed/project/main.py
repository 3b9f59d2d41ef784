import json
from types import SimpleNamespace

from tunes import Teacher, Tunes, improvise


def songbook(path):
    raise FileNotFoundError(path)


if __name__ == "__main__":
    spec = SimpleNamespace(**json.load(open("conf/tunes.json")))
    model = Tunes(spec)
    Teacher(model, songbook("songs.npz"), spec).teach()
    print(improvise(model, first=songbook("first.npz"), length=64, temperature=0.9))
