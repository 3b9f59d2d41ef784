"""The cards: complete in both languages, found by the questions that people ask, tied to the rules of check."""

import math
import re

import pytest

from bowerbird.reading.explain import cards

CARDS = cards.all()


def test_every_card_is_complete() -> None:
    assert len(CARDS) >= 50
    assert len({card.id for card in CARDS}) == len(CARDS)
    for card in CARDS:
        words, han = len(card.answer("en").split()), len(re.findall(r"[\u4e00-\u9fff]", card.answer("zh")))
        assert 60 <= words <= 140, (card.id, words)
        assert 90 <= han <= 260, (card.id, han)
        assert card.references, card.id
        assert card.title("en").isascii() or re.search("[√βεᾱ×α₀−]", card.title("en")), card.id
        assert re.search(r"[\u4e00-\u9fff]", card.title("zh")), card.id
        assert not re.search(r"[\u4e00-\u9fff]", card.answer("en")), card.id


def test_references_and_rules_are_well_formed() -> None:
    for card in CARDS:
        assert all(re.fullmatch("[LGVTDRSMPX][0-9]{2}", rule) for rule in card.rules), card.id
        for reference in card.references:
            assert not reference.arxiv or re.fullmatch(r"\d{4}\.\d{4,5}", reference.arxiv), (card.id, reference)
    titles: dict[str, set[str]] = {}
    for reference in (reference for card in CARDS for reference in card.references if reference.arxiv):
        titles.setdefault(reference.arxiv, set()).add(reference.text.split()[0])
    assert {arxiv: first for arxiv, first in titles.items() if len(first) > 1} == {}, "one paper, two first authors"


def test_the_figures_that_cards_quote() -> None:
    """What can be computed is computed here, so that no card quotes a figure from hearsay."""

    def end(steps: int) -> float:
        """sqrt(alpha_bar_T) of the linear schedule."""
        betas = [1e-4 + (0.02 - 1e-4) * i / (steps - 1) for i in range(steps)]
        return math.exp(sum(math.log1p(-beta) for beta in betas) / 2)

    schedule = cards.get("noise-schedule").answer("en")
    assert f"√ᾱ_T ≈ {end(1000):.3f}" in schedule and f"√ᾱ_T ≈ {end(100):.1f}" in schedule
    most = 1 / (1 + math.exp(-1))  # sigmoid(1): the largest probability after two sigmoids
    sigmoid = cards.get("sigmoid-logits").answer("en")
    assert f"between 0.5 and {most:.2f}" in sigmoid
    assert f"{-math.log(most):.3f}" in sigmoid and f"{-math.log(0.5):.3f}" in sigmoid
    assert f"beyond about {math.log(65504):.0f}" in cards.get("logvar").answer("en")
    assert f"becomes {28 * 28}" in cards.get("kl-reduction").answer("en")


def test_a_reference_prints_what_it_knows() -> None:
    first = cards.get("min-max").references[0]
    assert str(first).startswith("Goodfellow et al. 2014") and "arXiv:1406.2661" in str(first)
    assert first.url == "https://arxiv.org/abs/1406.2661"


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Why min-max?", "min-max"),
        ("How often should I train D?", "update-ratio"),
        ("判别器该训练几次？", "update-ratio"),
        ("为什么这里要 detach？", "why-detach"),
        ("Why detach here?", "why-detach"),
        ("什么是模式崩溃", "mode-collapse"),
        ("Should z be gaussian or uniform noise?", "which-noise"),
        ("What is the meaning of β in a VAE?", "kl-reduction"),
        ("Should the KL be a sum or a mean?", "kl-reduction"),
        ("Why divide by √d_k?", "sqrt-dk"),
        ("为什么要除以 √d_k", "sqrt-dk"),
        ("linear or cosine schedule?", "noise-schedule"),
        ("DDIM 和 DDPM 有什么区别？", "ddpm-ddim-ode"),
        ("What is classifier-free guidance?", "guidance"),
        ("采样时为什么要 model.eval()？", "eval-mode"),
        ("Why is the hidden state detached between batches?", "truncated-bptt"),
        ("FID 什么时候不可信？", "fid-is"),
        ("Has my model memorised the training set?", "memorisation"),
        ("温度是什么意思", "temperature"),
        ("beta1 of Adam for a GAN", "gan-adam"),
        ("Why is the learning rate 0.0002?", "gan-adam"),
        ("为什么最后用 tanh？", "data-range"),
        ("latent_dim 为什么是 100？", "which-noise"),
        ("为什么要交替训练？", "update-ratio"),
        ("What is the role of the mask?", "causal-mask"),
        ("Why clip the weights to 0.01?", "wasserstein"),
        ("codebook 利用率低怎么办", "codebook-collapse"),
        ("Why LeakyReLU?", "dcgan-choices"),
    ],
)
def test_a_question_finds_its_card(question: str, expected: str) -> None:
    assert cards.find(question)[0].id == expected


def test_a_question_about_something_else_finds_nothing() -> None:
    assert cards.find("Will it rain in Lisbon tomorrow?") == []
    assert cards.find("明天会下雨吗？", "zh") == []


def test_every_card_is_found_by_its_own_title() -> None:
    lost = {
        (card.id, lang)
        for card in CARDS
        for lang in cards.LANGUAGES
        if card not in cards.find(card.title(lang), lang, n=3)
    }
    assert lost == set()


def test_a_rule_has_the_card_that_names_it_first() -> None:
    assert cards.for_rule("G06")[0].id == "wasserstein"
    assert cards.for_rule("G01")[0].id == "why-detach"
    assert cards.for_rule("X99") == []
