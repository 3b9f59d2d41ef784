"""Autoregressive models: causality, padding, packing, segments, generation, pixels as tokens, adapters."""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from bowerbird import config
from bowerbird.draws import Draws
from bowerbird.eightbit import to_float
from bowerbird.errors import BowerbirdError
from bowerbird.models.autoregressive import (
    Autoregressive,
    AutoregressiveConfig,
    TokenOptions,
    ValueOptions,
)
from bowerbird.models.base import Batch, Scores, Streams, counting_evaluations
from bowerbird.nets.lora import LoRAConfig, adapters, merged_state
from bowerbird.nets.rnn import RNNConfig
from bowerbird.nets.rows import to_images, to_values
from bowerbird.nets.transformer import TransformerConfig
from bowerbird.samplers.decoding import Sampling
from bowerbird.spec import NO_TOKEN, Classes, Spec, Tensors, Tokens
from bowerbird.training.optimizers import MovingAverage, PlayerOptimizer
from bowerbird.training.starting import start_from
from later import later

stats = later("scipy.stats")

BOS, EOS, PAD, VOCAB, CONTEXT = 0, 1, 2, 14, 12
TOKENS = Tokens(VOCAB, CONTEXT, BOS, EOS, PAD, start=(BOS,))
SPEC = Spec("text", TOKENS)
WITHOUT_END = Spec("text", replace(TOKENS, eos=-1))
NETS = {
    "transformer": TransformerConfig(n_layer=2, n_head=2, n_embd=16),
    "learned": TransformerConfig(n_layer=1, n_head=2, n_embd=16, positions="learned", tied=False),
    "lstm": RNNConfig(n_layer=1, n_embd=16),
    "gru": RNNConfig(cell="gru", n_layer=2, n_embd=16),
}
TRANSFORMER, LSTM = NETS["transformer"], NETS["lstm"]
every_net = pytest.mark.parametrize("net", NETS.values(), ids=NETS.keys())


def language_model(net: Any = TRANSFORMER, spec: Spec = SPEC, **options: Any) -> Autoregressive:
    """With weights large enough that every choice is a clear one."""
    torch.manual_seed(0)
    model = AutoregressiveConfig(net=net, **options).build(spec)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model.eval()


def random_tokens(n: int, length: int) -> Tensor:
    return torch.randint(3, VOCAB, (n, length), generator=seeded())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def prompts(*rows: list[int]) -> dict[str, Tensor]:
    """Prompts of any lengths, as a model is given them."""
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    return {"prompt": nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=NO_TOKEN)}


def stream(model: Autoregressive, *rows: list[int], draws: Draws | None = None, **options: Any) -> list[Tensor]:
    return list(model.stream(len(rows), prompts(*rows), TokenOptions(**options), draws))


def loss_of(model: Any, batch: Batch) -> Tensor:
    (loss,) = model.losses(batch)
    return loss.value


def gradients(model: nn.Module, value: Tensor) -> dict[str, Tensor]:
    """By name; None where the value does not depend on a parameter."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(value, parameters, allow_unused=True), strict=True))


# ------------------------------------------------------------------------------------------------------ the loss


def embeddings_used(model: Autoregressive, value: Tensor) -> list[bool]:
    """Whether the value depends on the embedding of each token; of a net with logits of their own (tied = False)."""
    found = gradients(model, value)
    (table,) = (gradient for name, gradient in found.items() if "embedding" in name and "position" not in name)
    return table.any(1).tolist()


@every_net
def test_no_gradient_comes_from_the_future(net: Any) -> None:
    """In a row of tokens that are all different, the loss of token i depends on all before it and on no other."""
    model = language_model(replace(net, tied=False))
    x = torch.arange(CONTEXT + 1)[None]
    for i in range(1, CONTEXT + 1):
        counted = torch.zeros_like(x, dtype=torch.bool)
        counted[0, i] = True
        used = embeddings_used(model, loss_of(model, Batch(x, weight=counted)))
        assert used == [token < i for token in range(VOCAB)]


@every_net
def test_the_loss_of_a_padded_batch_is_that_of_its_sequences(net: Any) -> None:
    model = language_model(net)
    rows = [random_tokens(1, length) for length in (4, 9, 13)]
    alone = [loss_of(model, Batch(row)).item() for row in rows]
    x = torch.full((3, 13), PAD)
    for i, row in enumerate(rows):
        x[i, : row.shape[1]] = row
    counted = x != PAD
    counted[:, 0] = False
    together = loss_of(model, Batch(x, weight=counted))
    n = [row.shape[1] - 1 for row in rows]
    assert together.item() == pytest.approx(sum(a * k for a, k in zip(alone, n, strict=True)) / sum(n), rel=1e-5)
    log_prob = model.log_prob(Batch(x))
    assert log_prob.tolist() == pytest.approx([-a * k for a, k in zip(alone, n, strict=True)], rel=1e-5)
    assert isinstance(model, Scores) and isinstance(model, Streams)


def test_packed_rows_are_separate_documents() -> None:
    model = language_model()
    rows = [random_tokens(1, length) for length in (4, 6, 3)]
    x = torch.cat([*rows, torch.full((1, 2), PAD)], dim=1)
    document = torch.cat([torch.full((1, row.shape[1]), i + 1) for i, row in enumerate(rows)], dim=1)
    document = torch.cat([document, torch.zeros(1, 2, dtype=torch.long)], dim=1)
    counted = torch.zeros_like(x, dtype=torch.bool)
    counted[:, 1:] = (document[:, 1:] == document[:, :-1]) & (document[:, 1:] > 0)
    packed = loss_of(model, Batch(x, {"document": document}, weight=counted))
    alone = torch.cat([model.log_prob(Batch(row)) for row in rows]).sum()
    assert packed.item() == pytest.approx(-float(alone) / int(counted.sum()), rel=1e-5)
    assert float(model.log_prob(Batch(x, {"document": document}, weight=counted))) == pytest.approx(
        float(alone), rel=1e-5
    )
    unaware = loss_of(model, Batch(x, weight=counted))
    assert unaware.item() != pytest.approx(packed.item(), rel=1e-3)


def test_a_batch_that_counts_nothing_costs_nothing() -> None:
    x = random_tokens(2, 5)
    assert loss_of(language_model(), Batch(x, weight=torch.zeros_like(x, dtype=torch.bool))).item() == 0


def test_one_segment_over_the_row_is_full_backpropagation() -> None:
    x = random_tokens(3, 13)
    full, truncated = language_model(LSTM), language_model(LSTM, segment=12)
    expected = gradients(full, loss_of(full, Batch(x)))
    found = gradients(truncated, loss_of(truncated, Batch(x)))
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4)


def test_segments_carry_the_state_but_no_gradient() -> None:
    """The losses of all segments add up to the whole; each depends on the embeddings of its own tokens alone."""
    x = torch.stack([torch.randperm(13, generator=seeded(seed)) for seed in range(3)])
    full, truncated = (language_model(replace(LSTM, tied=False), segment=segment) for segment in (None, 5))
    batch = Batch(x, weight=torch.ones_like(x, dtype=torch.bool))  # padding is a token like any other here
    losses = [loss.value for loss in truncated.losses(batch)]
    total = sum(n / 12 * loss.item() for n, loss in zip((5, 5, 2), losses, strict=True))
    assert total == pytest.approx(loss_of(full, batch).item(), rel=1e-5)
    for piece, loss in zip((slice(0, 5), slice(5, 10), slice(10, 12)), losses, strict=True):
        used = embeddings_used(truncated, loss)
        assert used == [bool((x[:, piece] == token).any()) for token in range(VOCAB)]


def test_segments_are_for_recurrent_nets() -> None:
    with pytest.raises(BowerbirdError, match="recurrent"):
        language_model(TRANSFORMER, segment=4)


# ------------------------------------------------------------------------------------------------------ generation


def greedy_uncached(model: Autoregressive, prompt: Tensor, n_tokens: int) -> list[int]:
    """The most probable tokens, each from all before it read anew."""
    tokens = prompt
    with torch.no_grad():
        while len(tokens) < len(prompt) + n_tokens and model.spec.target.eos not in tokens[len(prompt) :]:
            logits, _ = model.net(tokens[None])
            tokens = torch.cat([tokens, logits[0, -1].argmax()[None]])
    return tokens[len(prompt) :].tolist()


@every_net
def test_cached_generation_equals_uncached(net: Any) -> None:
    """Greedily, for prompts of unequal length read in one batch."""
    model = language_model(net)
    beginnings = [[BOS, *row] for row in ([], [3, 4, 5], [7], [8, 8, 9, 10, 3], [6, 5])]
    rows = torch.stack(stream(model, *beginnings, n_tokens=7, temperature=0), dim=1)
    for prompt, row in zip(beginnings, rows, strict=True):
        expected = greedy_uncached(model, torch.tensor(prompt), 7)
        assert row.tolist() == expected + [PAD] * (rows.shape[1] - len(expected))


def test_a_stream_goes_on_beyond_the_context() -> None:
    """By reading the last half of the context again; recurrent nets need no such thing."""
    model = language_model(spec=WITHOUT_END)
    tokens = [BOS, *(int(t) for t in stream(model, [BOS], n_tokens=40, temperature=0))]
    first = 0
    for i in range(1, len(tokens)):
        if i - first > CONTEXT:
            first = i - CONTEXT // 2
        with torch.no_grad():
            logits, _ = model.net(torch.tensor(tokens[first:i])[None])
        assert tokens[i] == int(logits[0, -1].argmax())
    recurrent = language_model(LSTM, WITHOUT_END)
    made = torch.cat(stream(recurrent, [BOS], n_tokens=40, temperature=0))
    assert made.tolist() == greedy_uncached(recurrent, torch.tensor([BOS]), 40)


def test_a_prompt_longer_than_the_context() -> None:
    model = language_model()
    full = random_tokens(1, CONTEXT)[0].tolist()
    assert len(stream(model, full, n_tokens=1)) == 1
    with pytest.raises(BowerbirdError, match="13 tokens, but this model reads at most 12"):
        stream(model, random_tokens(1, CONTEXT + 1)[0].tolist(), n_tokens=1)
    assert len(stream(language_model(LSTM), random_tokens(1, 50)[0].tolist(), n_tokens=1)) == 1


def test_samples_begin_with_the_prompt_and_end_with_eos() -> None:
    model = language_model()
    rows = model.sample(60, generator=Draws(0))
    assert rows.dtype == torch.int64 and rows.shape[0] == 60 and rows.shape[1] <= CONTEXT + 1
    assert (rows[:, 0] == BOS).all() and not rows.is_inference()
    ended = [row.index(EOS) for row in rows.tolist() if EOS in row]
    assert ended and len(set(ended)) > 1
    for row in rows.tolist():
        if EOS in row:
            assert set(row[row.index(EOS) + 1 :]) <= {PAD}
    began = model.sample(4, prompts(*[[BOS, 5, 6]] * 4), generator=Draws(0))
    assert (began[:, :3] == torch.tensor([BOS, 5, 6])).all()
    assert torch.equal(model.sample(60, generator=Draws(0)), rows)
    with pytest.raises(BowerbirdError, match="label"):
        model.sample(2, {"label": torch.zeros(2, dtype=torch.long)})


@every_net
def test_a_row_does_not_depend_on_the_prompts_beside_it(net: Any) -> None:
    """Drawn with random numbers of its own, whatever the lengths of the other prompts."""
    model = language_model(net)
    beginnings = [[BOS, *row] for row in ([], [3, 4, 5], [7], [8, 8, 9, 10, 3], [6, 5])]
    for i, n_tokens in itertools.product(range(5), (6, None)):
        options = TokenOptions(n_tokens=n_tokens)
        together = model.sample(5, prompts(*beginnings), options, Draws(3))
        alone = model.sample(1, prompts(beginnings[i]), options, Draws(3, first=i))
        assert torch.equal(together[i, : alone.shape[1]], alone[0])
        assert (together[i, alone.shape[1] :] == PAD).all()


def test_an_empty_prompt_is_the_start() -> None:
    model = language_model()
    options = TokenOptions(n_tokens=5)
    rows = model.sample(3, prompts([], [], []), options, Draws(0))
    assert torch.equal(rows, model.sample(3, None, options, Draws(0)))


def test_options_come_from_the_configuration_unless_given() -> None:
    greedy = language_model(sampling=Sampling(temperature=0))
    model = language_model()

    def sample(model: Autoregressive, n: int, **options: Any) -> Tensor:
        return model.sample(n, None, TokenOptions(**options), Draws(0))

    assert torch.equal(greedy.sample(2), sample(model, 2, temperature=0))
    assert torch.equal(sample(greedy, 9, temperature=1), sample(model, 9))
    assert torch.equal(greedy.sample(2), sample(model, 2, top_k=1))
    strong = sample(model, 1, temperature=0, repetition_penalty=1e6)[0].tolist()
    without_end = [token for token in strong if token not in (EOS, PAD)]
    assert len(set(without_end)) == len(without_end)  # no token comes twice
    with pytest.raises(ValueError, match="top_p"):
        TokenOptions(top_p=1.5)


def test_the_cost_is_one_evaluation_per_token() -> None:
    model = language_model(spec=WITHOUT_END)
    with counting_evaluations(model) as rows:
        model.sample(5, prompts(*[[BOS, 4, 5]] * 5), TokenOptions(n_tokens=8))
    assert rows[0] == 5 * 8


# ------------------------------------------------------------------------------------------------------ pixels


def pixel_model(spec: Spec, net: Any = TRANSFORMER, **options: Any) -> Autoregressive:
    torch.manual_seed(0)
    model = AutoregressiveConfig(net=net, **options).build(spec)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model.eval()


BINARY = Spec("image", Tensors((1, 2, 2)), {"label": Classes(("a", "b"), (3, 1))})
WORLD = to_images(torch.tensor(list(itertools.product((0, 1), repeat=4))), 2, BINARY.target.shape)
"""All 16 black-and-white images of 2×2 pixels."""


def world(label: int) -> Batch:
    return Batch(WORLD, {"label": torch.full((16,), label)})


@every_net
@pytest.mark.parametrize("conditional", [True, False])
def test_the_probabilities_of_all_images_sum_to_one(net: Any, conditional: bool) -> None:
    model = pixel_model(BINARY, net, levels=2, conditional=conditional)
    assert model.spec.given == (BINARY.given if conditional else {})
    totals = [model.log_prob(world(label)).exp() for label in (0, 1)]
    assert [float(total.sum()) for total in totals] == pytest.approx([1, 1], abs=1e-5)
    assert torch.equal(totals[0], totals[1]) is not conditional


def test_images_are_sampled_with_their_probability() -> None:
    model = pixel_model(BINARY, levels=2)
    n = 20_000
    x = model.sample(n, {"label": torch.ones(n, dtype=torch.long)}, generator=Draws(0))
    number = (to_values(x, 2) * torch.tensor([8, 4, 2, 1])).sum(1)
    expected = model.log_prob(world(1)).double().exp()
    counts = torch.bincount(number, minlength=16).double()
    assert stats.chisquare(counts, expected / expected.sum() * n).pvalue > 0.01


def test_the_loss_is_the_likelihood_per_dimension() -> None:
    spec = Spec("image", Tensors((3, 2, 3)), {"label": Classes(("a", "b"))})
    model = pixel_model(spec)
    x = to_float(torch.randint(0, 256, (5, 3, 2, 3), dtype=torch.uint8))
    batch = Batch(x, {"label": torch.tensor([0, 1, 1, 0, 1])})
    (loss,) = model.losses(batch)
    nll = -model.log_prob(batch).mean() / spec.target.dims
    assert loss.value.item() == pytest.approx(float(nll), rel=1e-5)
    assert float(loss.logs["bits_per_dim"]) == pytest.approx(float(nll) / math.log(2), rel=1e-5)
    assert model.estimators["nll"].description == "exact"


@pytest.mark.parametrize("levels", [2, 3, 16, 200, 256])
def test_values_of_images_and_back(levels: int) -> None:
    """Row by row, of a pixel all channels in turn; 0 is black and levels-1 white."""
    values = torch.arange(12 * levels).view(-1, 12) % levels
    x = to_images(values, levels, (3, 2, 2))
    assert torch.equal(to_values(x, levels), values)
    assert x.min() == -1 and x.max() == 1
    assert torch.equal(to_values(x[:, 1:2, 1:, :1], levels), values[:, 7:8])


def test_256_levels_keep_every_pixel() -> None:
    x = to_float(torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16))
    assert torch.equal(to_values(x, 256)[0], torch.arange(256))
    assert pixel_model(BINARY, levels=16).estimators["nll"].description == "exact, of images quantised to 16 levels"


def test_images_without_a_label_need_label_dropout() -> None:
    with pytest.raises(BowerbirdError, match="label_dropout"):
        pixel_model(BINARY, levels=2).log_prob(Batch(WORLD))
    model = pixel_model(BINARY, levels=2, label_dropout=0.5)
    assert float(model.log_prob(Batch(WORLD)).exp().sum()) == pytest.approx(1, abs=1e-5)
    torch.manual_seed(0)
    values = {loss_of(model, world(0)).item() for _ in range(5)}
    assert len(values) > 1


def test_pixels_in_segments() -> None:
    full, truncated = pixel_model(BINARY, LSTM, levels=2), pixel_model(BINARY, LSTM, levels=2, segment=2)
    batch = Batch(WORLD, {"label": torch.arange(16) % 2})
    halves = [loss.value.item() for loss in truncated.losses(batch)]
    assert sum(halves) / 2 == pytest.approx(loss_of(full, batch).item(), rel=1e-5)


@every_net
def test_images_of_several_attributes(net: Any) -> None:
    """A token for each stands before the values; all images have probability one under every combination."""
    attributes = {"hair": Classes(("a", "b", "c"), (1, 2, 3)), "glasses": Classes(("x", "y"))}
    model = pixel_model(Spec("image", Tensors((1, 2, 2)), attributes), net, levels=2)
    totals = []
    for hair, glasses in itertools.product(range(3), range(2)):
        given = {"hair": torch.full((16,), hair), "glasses": torch.full((16,), glasses)}
        totals.append(model.log_prob(Batch(WORLD, given)).exp())
        assert float(totals[-1].sum()) == pytest.approx(1, abs=1e-5)
    assert all(not torch.allclose(a, b, atol=1e-4) for a, b in itertools.combinations(totals, 2))
    x = model.sample(8, generator=Draws(0))
    torch.testing.assert_close(model.sample(3, generator=Draws(0)), x[:3])


def test_images_cannot_be_given_pictures_or_texts() -> None:
    for field in (Tensors((1, 2, 2)), TOKENS):
        with pytest.raises(BowerbirdError, match="classes, but no other; use flow"):
            pixel_model(Spec("image", Tensors((1, 2, 2)), {"other": field}))


def test_values_of_pixels_have_options_of_their_own() -> None:
    model = pixel_model(BINARY, levels=2, sampling=Sampling(repetition_penalty=2.0))
    assert model.Options is ValueOptions and language_model().Options is TokenOptions
    assert model.sampling.repetition_penalty == 1
    given = {"label": torch.zeros(4, dtype=torch.long)}
    greedy = model.sample(4, given, ValueOptions(temperature=0), Draws(0))
    assert torch.equal(greedy, model.sample(4, given, ValueOptions(top_k=1), Draws(1)))
    assert (greedy == greedy[:1]).all()
    with counting_evaluations(model) as rows:
        model.sample(5)
    assert rows[0] == 5 * 4


# ------------------------------------------------------------------------------------------------------ adapters


def adapted(**options: Any) -> Autoregressive:
    torch.manual_seed(0)
    lora = LoRAConfig(rank=3, alpha=6.0, **options)
    return AutoregressiveConfig(net=TRANSFORMER, lora=lora).build(SPEC).eval()


def plain() -> Autoregressive:
    torch.manual_seed(0)
    return AutoregressiveConfig(net=TRANSFORMER).build(SPEC).eval()


def test_adapters_change_nothing_at_first() -> None:
    x = random_tokens(2, 9)
    assert torch.equal(adapted().log_prob(Batch(x)), plain().log_prob(Batch(x)))


def noisy_adapters() -> Autoregressive:
    model = adapted()
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model


def test_merged_weights_do_what_the_adapters_did() -> None:
    model, merged = noisy_adapters(), plain()
    x = random_tokens(4, 9)
    before = merged.log_prob(Batch(x))
    merged.load_state_dict(merged_state(model))
    torch.testing.assert_close(merged.log_prob(Batch(x)), model.log_prob(Batch(x)), atol=1e-4, rtol=1e-5)
    assert not torch.allclose(merged.log_prob(Batch(x)), before, atol=0.01)
    pieces = [torch.cat(stream(m, [BOS, 3], n_tokens=9, temperature=0)) for m in (model, merged)]
    assert torch.equal(*pieces)
    assert model.config.for_use() == merged.config


def test_only_adapters_are_trained_and_averaged() -> None:
    model = adapted()
    names = {name for name, _ in model.named_parameters()}
    assert names == adapters(model).keys() and len(names) == 2 * 4 * 2
    assert MovingAverage(model, 0.9).average.keys() == names
    before = {name: value.clone() for name, value in model.state_dict().items()}
    (module,) = model.players.values()
    player = PlayerOptimizer("model", module, config.Train(lr=0.1))
    for _ in range(2):  # in the first step A has no gradient, for B is zero
        torch.autograd.backward(loss_of(model, Batch(random_tokens(4, 9))), inputs=player.parameters)
        player.step(1.0, player.gradient_norm())
        player.zero_grad()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == names


def test_targets_choose_layers() -> None:
    names = adapters(adapted(targets=("attention.out", "blocks.1.mlp.up"))).keys()
    assert {name.rpartition(".")[0] for name in names} == {
        "net.blocks.0.attention.out", "net.blocks.1.attention.out", "net.blocks.1.mlp.up",
    }  # fmt: skip
    with pytest.raises(BowerbirdError, match="names no linear layer of this net; it has down, out, qkv, up"):
        adapted(targets=("query",))


def test_frozen_recurrent_layers_with_an_adapted_head() -> None:
    net = replace(LSTM, tied=False)
    model = AutoregressiveConfig(net=net, lora=LoRAConfig(rank=2, targets=("head",))).build(SPEC)
    assert {name for name, _ in model.named_parameters()} == {"net.head.lora_A", "net.head.lora_B"}
    found = gradients(model, loss_of(model, Batch(random_tokens(2, 9))))
    assert found["net.head.lora_B"].any()
    copy = AutoregressiveConfig(net=net).build(SPEC)
    copy.load_state_dict(merged_state(model))
    x = random_tokens(2, 9)
    torch.testing.assert_close(copy.log_prob(Batch(x)), model.log_prob(Batch(x)))


def test_training_starts_from_saved_weights(tmp_path: Path) -> None:
    model = language_model()
    safetensors.torch.save_file(model.state_dict(), tmp_path / "model.safetensors")
    x = random_tokens(2, 9)
    for lora in (LoRAConfig(), LoRAConfig(rank=2)):
        other = AutoregressiveConfig(net=TRANSFORMER, lora=lora).build(SPEC).eval()
        start_from(other, SPEC, tmp_path)
        assert torch.equal(other.log_prob(Batch(x)), model.log_prob(Batch(x)))


def test_adapters_need_all_of_the_weights_that_they_correct(tmp_path: Path) -> None:
    def adapted(net: TransformerConfig = TRANSFORMER, vocab_size: int = VOCAB) -> None:
        spec = Spec("text", replace(TOKENS, vocab_size=vocab_size))
        start_from(AutoregressiveConfig(net=net, lora=LoRAConfig(rank=2)).build(spec), spec, tmp_path)

    with pytest.raises(BowerbirdError, match=r"has no model\.safetensors"):
        adapted()
    safetensors.torch.save_file(language_model().state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(BowerbirdError, match=r"of shape \(15, 16\) \(of shape \(14, 16\) there\)"):
        adapted(vocab_size=15)
    with pytest.raises(BowerbirdError, match="not there"):
        adapted(net=replace(TRANSFORMER, n_layer=3))
