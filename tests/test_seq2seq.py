"""Sequence to sequence: label smoothing, padding, causality, greedy and beam search, sampling."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError
from bowerbird.models.base import Batch, Scores, Streams, counting_evaluations
from bowerbird.models.seq2seq import Seq2Seq, Seq2SeqConfig, Seq2SeqOptions
from bowerbird.nets.rnn import RNNConfig
from bowerbird.nets.transformer import TransformerConfig
from bowerbird.samplers.decoding import length_normalised
from bowerbird.spec import Spec, Tensors, Tokens
from later import later

stats = later("scipy.stats")

BOS, EOS, PAD, VOCAB, CONTEXT = 0, 1, 2, 14, 12
TARGET, SOURCE = Tokens(VOCAB, CONTEXT, BOS, EOS, PAD, start=(BOS,)), Tokens(VOCAB, 9, BOS, EOS, PAD)
SPEC = Spec("text", TARGET, {"source": SOURCE})
NET = TransformerConfig(n_layer=2, n_head=2, n_embd=16)


def translator(spec: Spec = SPEC, net: TransformerConfig = NET, seed: int = 0, **options: Any) -> Seq2Seq:
    """With weights large enough that every choice is a clear one."""
    torch.manual_seed(seed)
    model = Seq2SeqConfig(net=net, **options).build(spec)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model.eval()


def random_tokens(n: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(3, VOCAB, (n, length), generator=seeded(seed))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def padded(rows: list[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)


def pair(x: Tensor, source: Tensor, weight: Tensor | None = None) -> Batch:
    return Batch(x, {"source": source}, weight)


def only_loss(model: Seq2Seq, x: Tensor, source: Tensor, weight: Tensor | None = None):
    (loss,) = model.losses(pair(x, source, weight))
    return loss


def translate(model: Seq2Seq, source: Tensor, **options: Any) -> list[Tensor]:
    """The targets found, without bos, eos and padding."""
    rows = model.sample(len(source), {"source": source}, Seq2SeqOptions(**options))
    assert (rows[:, 0] == BOS).all()
    return [row[1 : row.tolist().index(EOS)] if EOS in row else row[1:] for row in rows]


# ------------------------------------------------------------------------------------------------------ the loss


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.5])
def test_label_smoothing_is_the_cross_entropy_with_a_mixed_target(label_smoothing: float) -> None:
    model = translator(label_smoothing=label_smoothing)
    x, source = random_tokens(3, 7), random_tokens(3, 5, seed=1)
    loss = only_loss(model, x, source)
    log_p = model.token_log_probs(x, source)
    target = (1 - label_smoothing) * torch.nn.functional.one_hot(x[:, 1:], VOCAB) + label_smoothing / VOCAB
    torch.testing.assert_close(loss.value, -(target * log_p).sum(-1).mean())
    torch.testing.assert_close(loss.logs["nll_per_token"], -model.log_prob(pair(x, source)).sum() / x[:, 1:].numel())


def test_padding_of_both_sides_changes_nothing() -> None:
    model = translator()
    sources = [random_tokens(1, length, seed=length)[0] for length in (3, 9, 6)]
    targets = [random_tokens(1, length, seed=length)[0] for length in (13, 4, 8)]
    alone = [only_loss(model, y[None], x[None]).value.item() for x, y in zip(sources, targets, strict=True)]
    together = only_loss(model, padded(targets), padded(sources)).value.item()
    n = [len(y) - 1 for y in targets]
    assert together == pytest.approx(sum(a * k for a, k in zip(alone, n, strict=True)) / sum(n), rel=1e-5)
    scores = [model.log_prob(pair(y[None], x[None])).item() for x, y in zip(sources, targets, strict=True)]
    assert model.log_prob(pair(padded(targets), padded(sources))).tolist() == pytest.approx(scores, rel=1e-5)
    for beam in (1, 3):
        rows = translate(model, padded(sources), beam=beam)
        for x, row in zip(sources, rows, strict=True):
            assert torch.equal(translate(model, x[None], beam=beam)[0], row)


def test_only_counted_tokens_count() -> None:
    model = translator(label_smoothing=0.0)
    x, source = random_tokens(2, 7), random_tokens(2, 5)
    counted = torch.zeros_like(x, dtype=torch.bool)
    counted[0, 3] = counted[1, 5] = True
    log_p = model.token_log_probs(x, source)
    expected = -(log_p[0, 2, x[0, 3]] + log_p[1, 4, x[1, 5]]) / 2
    torch.testing.assert_close(only_loss(model, x, source, counted).value, expected)


def test_the_decoder_sees_the_past_and_the_whole_source() -> None:
    model = translator()
    x, source = random_tokens(1, 8), random_tokens(1, 5)
    log_p = model.token_log_probs(x, source)
    for i in range(1, 8):
        changed = x.clone()
        changed[0, i:] = (x[0, i:] - 3 + 5) % (VOCAB - 3) + 3
        assert torch.equal(model.token_log_probs(changed, source)[:, :i], log_p[:, :i])
    for i in range(5):
        changed = source.clone()
        changed[0, i] = (source[0, i] - 3 + 5) % (VOCAB - 3) + 3
        assert not torch.allclose(model.token_log_probs(x, changed)[:, 0], log_p[:, 0], atol=1e-4)


# ------------------------------------------------------------------------------------------------------ translating


@pytest.mark.parametrize("seed", range(4))
def test_beam_one_equals_greedy(seed: int) -> None:
    """Each token the most probable one, all before it read anew."""
    model = translator(seed=seed)
    source = random_tokens(6, 7)
    with torch.no_grad():
        for x, found in zip(source, translate(model, source), strict=True):
            row = torch.tensor([[BOS]])
            while row.shape[1] <= CONTEXT and row[0, -1] != EOS:
                token = model.token_log_probs(torch.cat([row, row[:, :1]], 1), x[None])[0, -1].argmax()
                row = torch.cat([row, token.view(1, 1)], dim=1)
            expected = row[0, 1:]
            assert torch.equal(found, expected[expected != EOS])


def every_target(vocab: int, n_tokens: int) -> list[Tensor]:
    """All rows of at most ``n_tokens`` tokens behind bos that end with eos; bos and pad are tokens like any other."""
    inner = [token for token in range(vocab) if token != EOS]
    rows = (row for length in range(n_tokens) for row in itertools.product(inner, repeat=length))
    return [torch.tensor([BOS, *row, EOS]) for row in rows]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_a_wide_beam_finds_the_best_translation(seed: int, length_penalty: float) -> None:
    model = translator(Spec("text", replace(TARGET, vocab_size=4, context=4), {"source": SOURCE}), seed=seed)
    source = torch.tensor([[3, 0, 3]])

    def score(y: Tensor) -> float:
        log_p = model.log_prob(pair(y[None], source, torch.ones(1, len(y), dtype=torch.bool)))[0]
        return length_normalised(log_p, len(y) - 1, length_penalty).item()

    best = max(every_target(4, 4), key=score)
    (found,) = translate(model, source, beam=40, length_penalty=length_penalty)
    assert found.tolist() == best[1:-1].tolist()


def test_a_wider_beam_finds_more_probable_translations() -> None:
    model = translator(Spec("text", replace(TARGET, context=6), {"source": SOURCE}))
    source = random_tokens(20, 7)
    totals = []
    for beam in (1, 5):
        rows = translate(model, source, beam=beam, length_penalty=0.0)
        x = padded([torch.cat([torch.tensor([BOS]), row, torch.tensor([EOS])[: 6 - len(row)]]) for row in rows])
        totals.append(model.log_prob(pair(x, source)).sum().item())
    assert totals[1] > totals[0]


def test_options_come_from_the_configuration_unless_given() -> None:
    source = random_tokens(8, 7)
    plain, wide = translator(), translator(beam=4, length_penalty=2.0)
    rows = translate(plain, source, beam=4, length_penalty=2.0)
    assert all(torch.equal(a, b) for a, b in zip(rows, translate(wide, source), strict=True))
    assert max(len(row) for row in translate(plain, source, n_tokens=3)) <= 3
    assert isinstance(plain, Scores) and not isinstance(plain, Streams)
    with counting_evaluations(wide) as rows_read:
        translate(wide, source, n_tokens=1)
    assert rows_read[0] == 8 * 4


@pytest.mark.parametrize("option", [{"beam": 0}, {"length_penalty": -1.0}])
def test_wrong_options_are_one_sentence(option: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        Seq2SeqOptions(**option)
    with pytest.raises(ValueError, match=next(iter(option))):
        Seq2SeqConfig(**option)


def test_sources_that_cannot_be_translated() -> None:
    model = translator()
    with pytest.raises(BowerbirdError, match="10 tokens, but this model reads at most 9"):
        translate(model, random_tokens(2, 10))
    with pytest.raises(BowerbirdError, match="empty"):
        translate(model, padded([random_tokens(1, 4)[0], torch.tensor([PAD])]))


# ------------------------------------------------------------------------------------------------------ sampling


def test_samples_have_the_models_frequencies() -> None:
    model = translator()
    n, source = 20_000, random_tokens(1, 5)
    options = Seq2SeqOptions(temperature=1.0, n_tokens=1)
    first = model.sample(n, {"source": source.expand(n, -1)}, options, Draws(0))[:, 1]
    expected = model.token_log_probs(torch.tensor([[BOS, BOS]]), source)[0, 0].double().exp().detach()
    counts = torch.bincount(first, minlength=VOCAB).double()
    assert stats.chisquare(counts, expected / expected.sum() * n).pvalue > 0.01


def test_samples_are_rows_of_targets() -> None:
    model = translator()
    given, drawn = {"source": random_tokens(5, 6)}, Seq2SeqOptions(temperature=1.0)
    rows = model.sample(5, given, drawn, Draws(0))
    assert torch.equal(rows, model.sample(5, given, drawn, Draws(0)))
    assert not torch.equal(rows[:, :2], model.sample(5, given, drawn, Draws(1))[:, :2])
    assert rows.shape[1] <= CONTEXT + 1 and (rows[:, 0] == BOS).all() and rows.dtype == torch.int64
    some = model.sample(2, {"source": given["source"][:2]}, drawn, Draws(0))
    for row, alone in zip(rows, some, strict=False):
        assert torch.equal(row[: len(alone)], alone[: len(row)])
    greedy = model.sample(5, given, Seq2SeqOptions(temperature=0))
    for row, expected in zip(greedy, translate(model, given["source"]), strict=True):
        assert torch.equal(row[1 : 1 + len(expected)], expected)
    cautious = model.sample(5, given, Seq2SeqOptions(temperature=1.0, top_k=1), Draws(3))
    assert torch.equal(cautious, greedy)
    with pytest.raises(BowerbirdError, match="needs a source"):
        model.sample(2)
    with pytest.raises(BowerbirdError, match="label"):
        model.sample(5, given | {"label": torch.zeros(5, dtype=torch.long)})


def test_other_data_and_nets_are_refused() -> None:
    picture = Tensors((1, 4, 4))
    for spec in (Spec("image", picture), SPEC.alone(), Spec("text", TARGET, {"source": picture})):
        with pytest.raises(BowerbirdError, match="choose the family gan" if spec.target is picture else "pairs"):
            Seq2SeqConfig(net=NET).build(spec)
    with pytest.raises(BowerbirdError, match="use transformer"):
        Seq2SeqConfig(net=RNNConfig()).build(SPEC)
    with pytest.raises(BowerbirdError, match="source"):
        next(translator().losses(Batch(random_tokens(2, 5))))
    with pytest.raises(BowerbirdError, match="source"):
        translator().log_prob(Batch(random_tokens(2, 5)))
