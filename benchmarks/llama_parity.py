"""The same GGUF file in our Transformer, in llama.cpp and in transformers: tokens, greedy continuations, logits.

    bowerbird data get smollm2-135m-instruct
    python benchmarks/llama_parity.py transformers        needs transformers and accelerate
    python benchmarks/llama_parity.py llama.cpp           needs llama-cpp-python, which is compiled on installation

llama.cpp multiplies quantised weights by activations that it rounds to 8 bits; we undo the quantisation and compute in
float32.  So its logits differ from ours by that rounding, and where two tokens are nearly as probable it may choose the
other one: such ties are listed, with how far apart our two logits lie, and may be no wider than TIE.  The same weights
written by us as F32 leave nothing to round: there every token must agree.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bowerbird.data.fetch import get
from bowerbird.export import gguf
from bowerbird.export.checkpoint import Checkpoint
from bowerbird.nets.transformer import Transformer

N_TOKENS = 40
TIE = 1.0
"""The widest gap of two logits that rounding may turn around; the logits after one token span about 40."""
QUESTIONS = (
    "What is the capital of France?",
    "Write a haiku about rain.",
    "Explain gravity to a child in two sentences.",
    "List three colours.",
    "What is 12 + 30?",
    "Translate 'good morning' into Spanish.",
    "Why is the sky blue?",
    "Give me a recipe for pancakes.",
    "Who wrote Hamlet?",
    "Name a bird that builds bowers.",
)
TEXTS = (
    "The quick brown fox",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n    ",
    "Water boils at",
    "In 1969, the first",
    "The three laws of robotics are:\n1.",
    "Dear Sir or Madam,\n\nI am writing to",
    "import numpy as np\n\n",
    "The largest planet of the solar system is",
    "To be, or not to be,",
)


def prompts() -> list[str]:
    """Twenty: ten chats and ten texts to continue."""
    chat = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    return [*(chat.format(question) for question in QUESTIONS), *TEXTS]


def loaded(checkpoint: Checkpoint) -> Transformer:
    net = checkpoint.net.language_model(checkpoint.vocab_size, checkpoint.context).eval()
    net.load_state_dict(checkpoint.weights)
    return net


@torch.inference_mode()
def greedy(net: Transformer, tokens: list[int], eos: int) -> list[int]:
    """The continuation that takes the most probable token each time."""
    state = net.initial_state(1, len(tokens) + N_TOKENS)
    logits, _ = net(torch.tensor([tokens]), state)
    made: list[int] = []
    while len(made) < N_TOKENS and eos not in made:
        made.append(int(logits[0, -1].argmax()))
        logits, _ = net(torch.tensor([made[-1:]]), state)
    return made


@torch.inference_mode()
def all_logits(net: Transformer, tokens: list[int]) -> torch.Tensor:
    return net(torch.tensor([tokens]))[0][0]


# ------------------------------------------------------------------------------------------------- transformers


def against_transformers(file: Path, checkpoint: Checkpoint) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    net = loaded(checkpoint)
    theirs = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    worst = 0.0
    for prompt in prompts():
        tokens = checkpoint.tokenizer.core.encode(prompt).ids
        assert tokenizer(prompt).input_ids == tokens, f"other tokens for {prompt!r}"
        tokens += greedy(net, tokens, checkpoint.tokenizer.eos)
        with torch.inference_mode():
            difference = (theirs(torch.tensor([tokens])).logits[0] - all_logits(net, tokens)).abs().max()
        worst = max(worst, float(difference))
    print(f"transformers, {len(prompts())} prompts and their continuations: same tokens of the prompts,")
    print(f"  largest difference of a logit {worst:.1e} (at most 1e-3 allowed)")
    assert worst <= 1e-3


# ---------------------------------------------------------------------------------------------------- llama.cpp


def llama_cpp(file: Path) -> Callable[[list[int]], torch.Tensor]:
    """llama.cpp's logits after the last of the tokens that it is given next; an empty list begins anew."""
    import llama_cpp.llama_cpp as library
    from llama_cpp import Llama

    defaults = library.llama_model_default_params

    def plain() -> Any:
        """Weights as they lie in the file: repacked for AMX, version 0.3.36 crashes in its first product."""
        parameters = defaults()
        parameters.use_extra_bufts = False
        return parameters

    library.llama_model_default_params = plain
    model = Llama(str(file), n_ctx=512, n_batch=512, logits_all=True, n_threads=1, n_threads_batch=1, verbose=False)

    def read(tokens: list[int]) -> torch.Tensor:
        if not tokens:
            model.reset()
            return torch.empty(0)
        model.eval(tokens)
        return torch.from_numpy(model.scores[model.n_tokens - 1].copy())

    read.tokenize = lambda text: model.tokenize(text.encode(), add_bos=False, special=True)  # type: ignore[attr-defined]
    return read


def against_llama_cpp(file: Path, checkpoint: Checkpoint, exact: bool) -> None:
    net, theirs = loaded(checkpoint), llama_cpp(file)
    same, ties, worst, n_tokens = 0, [], 0.0, 0
    for prompt in prompts():
        tokens = checkpoint.tokenizer.core.encode(prompt).ids
        assert theirs.tokenize(prompt) == tokens, f"other tokens for {prompt!r}"  # type: ignore[attr-defined]
        theirs([])
        made, logits = [], [theirs(tokens)]
        while len(made) < N_TOKENS and checkpoint.tokenizer.eos not in made:
            made.append(int(logits[-1].argmax()))
            logits.append(theirs(made[-1:]))
        same += made == greedy(net, tokens, checkpoint.tokenizer.eos)
        n_tokens += len(made)
        # The same beginning for both at every place, so that one tie does not make all that follows differ.
        ours = all_logits(net, tokens + made[:-1])[len(tokens) - 1 :]
        for i, (a, b, token) in enumerate(zip(ours, logits, made, strict=False)):
            difference = float((a - b).abs().max())
            worst = max(worst, difference)
            if (best := int(a.argmax())) != token:
                ties.append((prompt, i, float(a[best] - a[token]), difference))
    name = "F32, written by us" if exact else file.name
    print(
        f"llama.cpp, {name}: {same} of {len(prompts())} prompts continued by the same {N_TOKENS} tokens or until eos,"
    )
    print(
        f"  {n_tokens - len(ties)} of {n_tokens} tokens the same after the same beginning; logits differ by {worst:.1e}"
    )
    for prompt, i, gap, difference in ties:
        print(f"  tie: token {i} after {prompt[-30:]!r}: our two logits {gap:.3f} apart, the programs {difference:.3f}")
    assert all(gap <= TIE for _, _, gap, _ in ties), "not a tie: another token by more than rounding explains"
    assert not (exact and ties), "in F32 nothing may differ"
    assert not exact or worst <= 1e-2


def main() -> None:
    torch.set_num_threads(1)
    file = get("smollm2-135m-instruct")
    checkpoint = gguf.read(file)
    peers = sys.argv[1:] or ["transformers", "llama.cpp"]
    if "transformers" in peers:
        against_transformers(file, checkpoint)
    if "llama.cpp" in peers:
        against_llama_cpp(file, checkpoint, exact=False)
        with tempfile.TemporaryDirectory() as folder:
            written = gguf.write(checkpoint, Path(folder) / "f32.gguf")
            against_llama_cpp(written, gguf.read(written), exact=True)


if __name__ == "__main__":
    main()
