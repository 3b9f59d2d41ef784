"""Continuous batching: every row gets the tokens that it would get alone, whoever joins and leaves beside it."""

from typing import Any

import pytest
import torch

from bowerbird.draws import Draws
from bowerbird.generating import Asked, draw_together
from bowerbird.models.autoregressive import AutoregressiveConfig, TokenOptions
from bowerbird.models.base import Joins
from bowerbird.nets.rnn import RNNConfig
from bowerbird.nets.roles import NetConfig
from bowerbird.nets.transformer import TransformerConfig
from bowerbird.spec import Spec, Tokens

VOCAB, CONTEXT = 11, 20
SMALL: dict[str, Any] = dict(n_layer=2, n_head=4, n_embd=32)
NETS = {
    "rotary": TransformerConfig(**SMALL),
    "learned": TransformerConfig(**SMALL, positions="learned", bias=True, activation="gelu-tanh"),
    "llama": TransformerConfig(**SMALL, norm="rms", activation="swiglu", n_kv_head=2, tied=False, qk_norm=True),
    "sines": TransformerConfig(**SMALL, positions="sinusoidal", n_kv_head=1),
    "lstm": RNNConfig(n_embd=12),
    "gru": RNNConfig(cell="gru", n_embd=12),
}
ASKED = [
    ([0], TokenOptions(n_tokens=30)),
    ([3, 4, 5, 6, 7], TokenOptions(n_tokens=5, temperature=0.7, top_k=4)),
    ([5] * 18, TokenOptions(n_tokens=50, repetition_penalty=1.3)),
    ([9, 8, 3], TokenOptions()),
    ([4, 3], TokenOptions(n_tokens=40, temperature=0.0)),
]
"""Prompts and options; some grow longer than the context."""


def far_from_its_start(net: NetConfig) -> Any:
    torch.manual_seed(0)
    model = AutoregressiveConfig(net=net).build(Spec("text", Tokens(VOCAB, CONTEXT, 0, 1, 2, (0,))))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("every", [1, 3, 50])
@pytest.mark.parametrize("net", NETS)
def test_rows_that_join_and_leave_are_as_alone(net: str, every: int) -> None:
    model = far_from_its_start(NETS[net])
    assert isinstance(model, Joins)
    alone = [
        model.sample(1, {"prompt": torch.tensor([prompt])}, options, Draws(i, 7))[0].tolist()
        for i, (prompt, options) in enumerate(ASKED)
    ]
    rows = [
        model.row({"prompt": torch.tensor([prompt])}, options, Draws(i, 7)) for i, (prompt, options) in enumerate(ASKED)
    ]
    batch, waiting, step = model.batch(), list(rows), 0
    while waiting or batch.rows:
        if waiting and (step % every == 0 or not batch.rows):
            batch.join(waiting.pop(0))
        added = batch.step()
        assert [one.row for one in added] and all(one.token == one.row.tokens[-1] for one in added)
        batch.leave([row for row in batch.rows if row.ended])
        step += 1
    assert [row.tokens for row in rows] == alone
    assert max(map(len, alone)) > CONTEXT, "none has outgrown the context"


def test_a_row_that_leaves_early_changes_nothing_for_the_others() -> None:
    model = far_from_its_start(NETS["rotary"])
    alone = model.sample(1, {"prompt": torch.tensor([[4, 3]])}, TokenOptions(n_tokens=25), Draws(5))[0].tolist()
    batch = model.batch()
    stays = model.row({"prompt": torch.tensor([[4, 3]])}, TokenOptions(n_tokens=25), Draws(5))
    leaves = model.row({"prompt": torch.tensor([[7] * 12])}, TokenOptions(n_tokens=25), Draws(6))
    for row in (leaves, stays):
        batch.join(row)
    for step in range(40):
        batch.step()
        if step == 3:
            batch.leave([leaves])
        batch.leave([row for row in batch.rows if row.ended])
        if not batch.rows:
            break
    assert stays.tokens == alone and len(leaves.tokens) <= 12 + 4


def test_logits_are_those_of_a_batch_of_one() -> None:
    model = far_from_its_start(NETS["llama"])
    batch = model.batch()
    rows = [model.row({"prompt": torch.tensor([list(range(1, n))])}, TokenOptions(), Draws(n)) for n in (3, 9, 5)]
    for row in rows:
        batch.join(row)
    for one in batch.step():
        expected, _ = model.read(torch.tensor([one.row.tokens[:-1]]))
        torch.testing.assert_close(one.logits, expected[0, -1], atol=1e-5, rtol=1e-4)


def test_several_seeds_in_one_batch_are_each_as_alone() -> None:
    model = far_from_its_start(NETS["rotary"])
    asked = [
        Asked(2, seed=1, given={"prompt": torch.tensor([[3, 4], [5, 6]])}),
        Asked(1, seed=2, first=5, given={"prompt": torch.tensor([[7, 7, 8, 3]])}),
    ]
    options = TokenOptions(n_tokens=6)
    together = draw_together(model, asked, options)
    for one, (x, given) in zip(asked, together, strict=True):
        ((alone, _),) = draw_together(model, [one], options)
        assert torch.equal(x, alone) and torch.equal(given["prompt"], one.given["prompt"])
