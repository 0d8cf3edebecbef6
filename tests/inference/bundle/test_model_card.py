"""What a card says of ε and the bounds, against the rooms that compute them; and what it leaves out."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpmed.config.model import MlpModel
from dpmed.inference.bundle.model_card import CardFacts, Together, _in_words, plain, write_card
from dpmed.inference.description import Target
from dpmed.inference.ledger import parse_ledger
from dpmed.privacy.constant_sign import constant_sign_upper
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.rero import assess, assess_epsilon
from dpmed.privacy.tradeoff import Composition
from dpmed.rounding import rounded_up
from tests.inference.made import ledger_bytes, make_description

HEADINGS = (
    "Model details",
    "Intended use",
    "Factors",
    "Training data",
    "Metrics",
    "Privacy",
    "What ε does not cover",
    "Who may receive it",
)


def card(*, data_name="folder", metrics=None, intervals=None, description=None, together=None, **ledger):
    return write_card(
        CardFacts(
            description=description or make_description(MlpModel(name="mlp", width=(5,)), (4, 5, 1)),
            ledger=parse_ledger(ledger_bytes(**ledger), where="made"),
            data_name=data_name,
            training={"Loss": "cross_entropy"},
            metrics=metrics or {},
            intervals=intervals or {},
            files=("model.json",),
            together=together,
        )
    )


def test_a_card_has_the_sections_that_readers_look_for():
    text = card()
    assert [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")] == list(HEADINGS)
    assert "NOT PRIVATE" not in text
    for name in ("healthy", "ill", "unsure"):
        assert name in text
    assert "3 outputs." in text and "It predicts one class per image." in text
    age = {"task": "regression", "classes": (), "outputs": 1, "targets": (Target(name="age", mean=50.0, std=10.0),)}
    single = make_description(MlpModel(name="mlp", width=(5,)), (4, 5, 1), **age)
    assert "1 output." in card(description=single)


def test_epsilon_and_both_bounds_are_those_of_the_accountant_and_never_rounded_down():
    text = card(epsilon=2.33771, train_size=400)
    assert "(ε, δ) = (2.338, 1e-05)" in text
    for adversary in ("worst-case", "relaxed"):
        risk = assess(
            Composition.of([SampledGaussian(noise_multiplier=2.0, sampling_rate=0.1, steps=100)], adversary),
            prior=1 / 400,
        )
        shown = float(rounded_up(risk.upper))
        assert risk.upper <= shown < risk.upper * 1.001
        assert f"at most {shown:.4g}" in text
    worst = assess(
        Composition.of([SampledGaussian(noise_multiplier=2.0, sampling_rate=0.1, steps=100)], "worst-case"),
        prior=1 / 400,
    )
    assert f"at most {rounded_up(worst.advantage)}" in text
    assert f"a TPR of at most {rounded_up(worst.tpr)}" in text
    assert f"{rounded_up(math.exp(2.33771))} times" in text


def test_intervals_of_metrics_are_said_to_be_by_unit():
    text = card(metrics={"accuracy": 0.9}, intervals={"accuracy": (0.8, 1.0)})
    assert "bootstrap over units (patients, where the data name them), each with all its samples" in text


def test_delta_is_never_rounded_down():
    text = card(delta=1.2345649e-6)
    assert "1.23457e-06) by" in text and "and a further 1.23457e-06 at most" in text and "1.23456e-06" not in text


def test_a_model_without_privacy_says_so_on_top_and_has_no_bounds():
    text = card(private=False, epsilon=None, delta=None, noise_multiplier=None, noise_source=None)
    assert text.splitlines()[2].startswith("> **NOT PRIVATE")
    assert "There is no ε" in text
    assert "Nobody outside the institution" in text
    assert "at most" not in text


def test_seeded_noise_is_said_on_top():
    assert card(noise_source="seeded").splitlines()[2].startswith("> **NOT PRIVATE")


def test_an_epsilon_that_promises_nothing_is_said_to():
    assert "promises next to nothing" in card(epsilon=1000.0)


def test_numbers_of_private_data_are_left_out_or_marked():
    numbers = {"metrics": {"accuracy": 0.8125}, "intervals": {"accuracy": (0.75, 0.875)}}
    assert "Left out" in card()
    private = card(**numbers)
    assert "**Marked: these numbers were computed from private test samples" in private
    assert "| accuracy | 0.8125 | 0.7500 to 0.8750 |" in private
    assert "Marked" not in card(data_name="digits", **numbers)


def test_sentences_of_the_ledger_choices_and_siblings_are_named():
    chosen = make_description(MlpModel(name="mlp", width=()), (4, 5, 1), chosen=("Early stopping chose.",))
    text = card(outside_accounting=["A secret use."], notes=["A note."], siblings=["seed=11"], description=chosen)
    for words in ("A secret use.", "A note.", "Early stopping chose.", "one of 2 runs", "seed=11"):
        assert words in text


def test_a_run_with_siblings_states_first_what_choosing_the_best_of_them_costs():
    mechanisms = tuple(SampledGaussian(noise_multiplier=sigma, sampling_rate=0.1, steps=100) for sigma in (2.0, 3.0))
    both = Together(epsilon=7.4321, delta=1e-5, runs=2, others=0, mechanisms=mechanisms)
    text = card(siblings=["seed=11"], together=both)
    places = [text.index(words) for words in ("by its scores among 2 private runs", "(7.433, 1e-05)", "by PLD")]
    assert places == sorted(places) and "without an ε" not in text
    # The risk of the best of both stands under the first of them.
    risk = assess(Composition.of(mechanisms, "worst-case"), prior=1 / 100)
    for name, value in (("probability", risk.upper), ("TPR - FPR)", risk.advantage), ("a TPR of", risk.tpr)):
        assert places[1] < text.index(f"{name} at most {rounded_up(value)}") < places[2]
    text = card(siblings=["eps=1/seed=10", "non_private/seed=10"], together=replace(both, others=1))
    assert "among 2 private runs" in text and "without an ε beside it: 1; nothing covers" in text
    text = card(siblings=["non_private/seed=10"], together=replace(both, others=1, runs=1))
    assert "private runs" not in text and "without an ε beside it: 1; nothing covers" in text
    assert "how much is unknown" in card(siblings=["seed=11"])
    assert "by its scores" not in card()


@pytest.mark.parametrize(
    ("distribution", "words"), [("geometric", "a random number of trainings, 10 on"), ("fixed", "10")]
)
def test_a_chosen_trial_is_bounded_by_the_epsilon_of_choosing_it(distribution, words):
    selection = {"distribution": distribution, "mean_trials": 10, "epsilon": 4.0, "chosen": True}
    text = card(epsilon=4.0, accountant="rdp", selection=selection)
    assert f"best of {words}" in text and "not selected" not in text and "relaxed" not in text
    risk = assess_epsilon(4.0, 1e-5, prior=1 / 100)
    for value in (risk.upper, risk.advantage, risk.tpr):
        assert f"{float(rounded_up(value)):.4g}" in text


@pytest.mark.parametrize(("distribution", "covered"), [("geometric", "holds only for the one"), ("fixed", "all of")])
def test_a_trial_that_was_not_chosen_is_not_called_the_best(distribution, covered):
    selection = {"distribution": distribution, "mean_trials": 2, "epsilon": 4.0, "chosen": False}
    text = card(epsilon=4.0, selection=selection)
    assert "best of" not in text and "another was chosen" in text and covered in text


def test_a_limit_that_rules_nothing_out_is_not_stated_as_if_it_did():
    selection = {"distribution": "fixed", "mean_trials": 2, "epsilon": 13.0, "chosen": True}
    text = card(epsilon=13.0, selection=selection)
    assert text.count("(ε, δ) alone gives no useful limit here") == 2
    loud = card(epsilon=1e4, noise_multiplier=0.05)
    assert loud.count("no useful limit is proven") == 2
    for said in (text, loud):
        assert "at most 1" not in said and "of at most 1" not in said


def test_a_relaxed_adversary_who_knows_that_the_sign_stays_the_same_stands_beside_the_other():
    text = card(sampling_rate=0.4, noise_multiplier=3.0, train_size=1294, steps=150)
    steps = Composition.of([SampledGaussian(noise_multiplier=3.0, sampling_rate=0.4, steps=150)], "relaxed")
    afresh, constant = assess(steps, prior=1 / 1294).upper, constant_sign_upper(steps, 1 / 1294)
    assert 10 * afresh < constant
    assert (
        f"from step to step, at most {rounded_up(afresh)}; who knows that it does, at most {rounded_up(constant)}"
        in text
    )


def test_a_limit_on_reconstruction_is_that_of_an_attacker_who_guesses_right_once_in_so_many_times():
    assert "would guess right once in 1,294 times, κ = 1/N = 0.0007728)" in card(train_size=1294)


def test_the_factor_of_epsilon_8_is_written_as_in_the_cards_own_example():
    words = _in_words(8.0, 1e-5, "image")
    assert "at most 2,981 times" in words and "at 8 it is 2,981." in words


@given(st.floats(0, 20))
def test_the_factor_in_plain_words_is_written_out_and_never_too_small(spent):
    factor = _in_words(spent, 1e-5, "image").partition("at most ")[2].partition(" times")[0]
    assert "e" not in factor and math.exp(spent) <= float(factor.replace(",", "")) <= 1.001 * math.exp(spent)


def test_names_from_elsewhere_cannot_write_markdown():
    evil = "x\n# Approved by\n<script>[a](b)|`*_"
    text = card(
        description=make_description(MlpModel(name="mlp", width=()), (4, 5, 1), classes=(evil, "b", "c")), data=evil
    )
    assert "\n# Approved" not in text
    assert "<script>" not in text
    assert plain(evil) == "x Approved by script a (b)"
