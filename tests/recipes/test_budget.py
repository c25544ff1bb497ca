"""The loss terms' shares of G's gradient in every recipe: the same gradients from the same work."""

from __future__ import annotations

import csv
import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fastgan.recipes import RECIPES, load_recipe
from fastgan.training.loop import train
from fastgan.training.processes.runtime import Runtime
from fastgan.training.report import write_report
from tests.recipes.runs import assert_resume_is_bit_exact
from tests.recipes.steps import generator, one_batch, terms_of

# Options under which a recipe's terms take other ways.
VARIANTS = {
    "dcgan": ["--loss bce", "--loss relativistic --n_g_steps 2 --balance every_step"],
    "enhancenet": ["--variant E", "--variant PAT"],
    "starganv2": ["--updates joint", "--updates in_turn", "--w_id 1"],
    "stegastamp": ["--no_im_loss_steps 0", "--no_im_loss_steps 0 --borders no_edge", "--no_im_loss_steps 9"],
    "zi2zi": ["--const_of fake", "--const_of real", "--norm instance --g_updates 2"],
}
CASES = [(name, options) for name in RECIPES for options in VARIANTS[name]]
# Terms that share a forward pass, through which each is run backward.
SHARED_WORK = {"--variant PAT", *VARIANTS["zi2zi"]}


def make(name, config, **changes):
    config = dataclasses.replace(config, **changes)
    torch.manual_seed(0)
    return load_recipe(name)(config, Runtime(config))


def gradients_of_step(recipe, step=5):
    """The parameters' gradients that the optimizer of G gets in a training step."""
    gradients = []

    def record(optimizer, *_):
        gradients.extend(
            None if p.grad is None else p.grad.clone()
            for group in optimizer.param_groups
            for p in group["params"]
        )

    recipe.optimizers["generator"].register_step_pre_hook(record)
    torch.manual_seed(1)
    recipe.train_step(one_batch(recipe), step, generator())
    return gradients


@pytest.mark.parametrize(("name", "options"), CASES)
def test_gradients_are_those_of_the_weighted_sum(config_of, name, options):
    config = config_of(name, options)
    plain, measured = (gradients_of_step(make(name, config, budget_interval=interval)) for interval in (0, 1))
    assert [p is None for p in plain] == [m is None for m in measured]
    pairs = [(p, m) for p, m in zip(plain, measured, strict=True) if p is not None]
    assert len(pairs) > 4
    joined = torch.cat([p.flatten() for p, _ in pairs])
    assert (joined - torch.cat([m.flatten() for _, m in pairs])).norm() <= 1e-6 * joined.norm()
    for p, m in pairs:  # a small sum of large gradients has lost some digits
        assert (p - m).norm() <= 1e-6 * max(p.norm(), 0.1 * joined.norm())


@pytest.mark.parametrize(("name", "options"), CASES)
def test_nothing_is_computed_twice(config_of, name, options):
    config = config_of(name, options)
    operations = []
    for interval in (0, 1):
        recipe = make(name, config, budget_interval=interval)
        batch = one_batch(recipe)
        with FlopCounterMode(display=False) as counter:
            recipe.train_step(batch, 1, generator())  # without R1, which runs D backward on a leaf
        operations.append(counter.get_total_flops())
    if options in SHARED_WORK:
        assert operations[1] <= 1.1 * operations[0]
    else:
        assert operations[1] <= 1.001 * operations[0]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_shares_sum_to_one_and_pairs_have_cosines(config_of, name, options):
    recipe = make(name, config_of(name, options), budget_interval=2)
    between = terms_of(recipe.train_step, one_batch(recipe), 1, generator())
    if len(recipe.config.generator_terms) > 1:
        assert not [term for term in between if term.startswith(("share_", "cosine_"))]
    terms = terms_of(recipe.train_step, one_batch(recipe), 2, generator())
    shares = {key.removeprefix("share_"): value for key, value in terms.items() if key.startswith("share_")}
    expected = ("secret_loss",) if "no_im_loss_steps 9" in options else recipe.config.generator_terms
    assert sorted(shares) == sorted(expected)
    assert sum(shares.values()).item() == pytest.approx(1, rel=1e-5)
    assert all(abs(value) < 1.0001 for key, value in terms.items() if key.startswith("cosine_"))


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "dcgan"])
def test_wanted_shares_set_the_weights(config_of, name):
    options = {"enhancenet": "--variant PAT", "stegastamp": "--no_im_loss_steps 0"}.get(name, "")
    names = config_of(name, options).generator_terms
    wanted = {term: index + 1 for index, term in enumerate(names)}
    shares = ",".join(f"{term}={share}" for term, share in wanted.items())
    recipe = make(name, config_of(name, f"{options} --shares [{shares}]"))
    terms = terms_of(recipe.train_step, one_batch(recipe), 0, generator())
    total = sum(wanted.values())
    if recipe.config_class.__name__ != "StarGANv2Config":  # which updates G by one kind of style at a time
        for term, share in wanted.items():
            assert terms[f"share_{term}"].item() == pytest.approx(share / total, rel=1e-4)
    assert "budget" in recipe.networks


@pytest.mark.parametrize("options", ["", "--shares [adv=1,sty=1,cyc=1,ds=1]"])
def test_diversity_is_maximized_in_any_case(config_of, options):
    recipe = make("starganv2", config_of("starganv2", f"{options} --updates joint"))
    given = []
    measure = recipe.budget.loss

    def recorded(terms, weights=None, **others):
        given.append((terms["ds"].item(), None if weights is None else weights["ds"]))
        return measure(terms, weights, **others)

    recipe.budget.loss = recorded
    terms = terms_of(recipe.train_step, one_batch(recipe), 0, generator())
    ((ds, weight),) = given
    assert ds == pytest.approx(-(terms["ds_ref_loss"] + terms["ds_lat_loss"]).item(), rel=1e-5) and ds < 0
    assert weight is None or weight == recipe.lambda_ds(0) > 0


def test_a_run_with_wanted_shares_resumes_to_the_bit(config_of):
    shares = "--shares [G_loss=1,category_loss=1,l1_loss=5,const_loss=2]"
    config = config_of("zi2zi", f"{shares} --ema_decay 0.9")
    assert_resume_is_bit_exact(load_recipe("zi2zi"), config, at=2, steps=4)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ("[l1_loss=1]", "shares must name the terms G_loss, category_loss, l1_loss, const_loss, got l1_loss"),
        ("[l1_loss]", "shares must be NAME=SHARE each, got 'l1_loss'"),
        ("[l1_loss=many]", "shares must be NAME=SHARE each, got 'l1_loss=many'"),
        ("[l1_loss=0]", "shares must be numbers above 0, got 'l1_loss=0'"),
        ("[l1_loss=nan]", "shares must be numbers above 0, got 'l1_loss=nan'"),
        ("[l1_loss=1,l1_loss=2]", "shares must name each term once"),
    ],
)
def test_shares_that_cannot_be_are_refused(config_of, shares, message):
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        config_of("zi2zi", f"--shares {shares}")


def test_the_table_has_shares_only_where_they_were_measured(config_of):
    config = config_of("zi2zi", "--log_interval 1 --num_steps 2 --eval_interval 2 --budget_interval 2")
    folder = train(load_recipe("zi2zi"), config)
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["share_l1_loss"] != "" for row in rows] == [True, False]
    report = write_report(folder, "zi2zi").read_text()
    assert "Shares of G&#x27;s gradient" in report or "Shares of G&#39;s gradient" in report
