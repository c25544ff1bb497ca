"""Where `fastgan.patch` finds what it replaces, and what becomes of objects that outlive it."""

from __future__ import annotations

import collections
import copy
import importlib
import io
import pickle
import sys

import pytest
import torch

import fastgan
from fastgan.compat import starganv2
from tests.optim.steps import PAIRS, assert_same, parameters, train

PLACES = """
from collections import OrderedDict, defaultdict
from core.solver import adv_loss

LIST = [adv_loss, 1]
ORDERED = OrderedDict(adversarial=adv_loss, number=1)
DEFAULTS = defaultdict(int, adversarial=adv_loss)

class Trainer:
    loss = staticmethod(adv_loss)
    of_class = classmethod(adv_loss)
"""


def held(module):
    trainer = vars(module.Trainer)
    return [
        module.LIST[0],
        module.ORDERED["adversarial"],
        module.DEFAULTS["adversarial"],
        trainer["loss"].__func__,
        trainer["of_class"].__func__,
    ]


def test_lists_dicts_of_all_kinds_and_static_methods_are_reached(packages, write):
    write({"places.py": PLACES})
    module, solver = importlib.import_module("places"), importlib.import_module("core.solver")
    original = solver.adv_loss
    with fastgan.patch("starganv2", quiet=True):
        assert all(each is solver.adv_loss for each in held(module)) and original is not solver.adv_loss
        assert list(module.ORDERED.items()) == [("adversarial", solver.adv_loss), ("number", 1)]
        assert type(vars(module.Trainer)["of_class"]) is classmethod
    assert all(each is original for each in held(module))


def test_unpatch_reaches_modules_that_are_imported_no_more(packages):
    trainer = importlib.import_module("train_starganv2")
    original = trainer.adv_loss
    with fastgan.patch("starganv2", quiet=True):
        assert trainer.adv_loss.__code__ is starganv2.adv_loss.__code__
        solver = sys.modules.pop("core.solver")
        del sys.modules["train_starganv2"]
    assert trainer.adv_loss is trainer.LOSSES["adversarial"] is solver.adv_loss is original


def saved(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_an_optimizer_that_was_pickled_before_the_patch_steps_on(name):
    params = parameters()
    optimizer = PAIRS[name][1](params, lr=0.01)
    train(params, optimizer, 3)
    file = saved((params, optimizer))
    with fastgan.patch("torch.optim", quiet=True):
        ours, loaded = torch.load(file, weights_only=False)
        assert isinstance(loaded, PAIRS[name][0])
        train(ours, loaded, 3, first=3)
        assert isinstance(copy.deepcopy(loaded), PAIRS[name][0])
    train(params, optimizer, 3, first=3)
    assert_same(ours, params, 1e-6)


def test_what_ours_would_not_step_is_refused_when_it_is_unpickled():
    plain = torch.nn.Parameter(torch.zeros(2)), torch.optim.Adam, {"differentiable": True}
    for parameter, kind, options in (plain, (torch.nn.Parameter(torch.zeros(2).cfloat()), plain[1], {})):
        file = saved(kind([parameter], **options))
        message = "differentiable must be False" if options else "real floating-point"
        with fastgan.patch("torch.optim", quiet=True), pytest.raises((TypeError, ValueError), match=message):
            torch.load(file, weights_only=False)


def test_objects_made_under_a_patch_can_be_pickled_after_it(packages):
    losses = importlib.import_module("basicsr.losses")
    with fastgan.patch("basicsr", "torch.optim", quiet=True):
        loss, optimizer = losses.GANLoss("hinge"), torch.optim.Adam(parameters())
        during = pickle.dumps(loss)
        assert type(pickle.loads(during)) is losses.GANLoss is type(copy.copy(loss)) is type(loss)
    assert type(copy.deepcopy(loss)) is type(loss)
    assert type(pickle.loads(pickle.dumps(optimizer))) is fastgan.optim.Adam
    for text in (during, pickle.dumps(loss)):
        again = pickle.loads(text)
        assert type(again) is fastgan.compat.basicsr.GANLoss
        assert again(torch.ones(3), True) == loss(torch.ones(3), True)
        with fastgan.patch("basicsr", quiet=True):
            assert type(pickle.loads(text)) is losses.GANLoss


def test_a_class_that_derives_from_a_stand_in_is_pickled_by_its_own_name(packages, write):
    write({"heir.py": "from basicsr.losses import GANLoss\nclass Heir(GANLoss):\n    pass\n"})
    with fastgan.patch("basicsr", quiet=True):
        heir = importlib.import_module("heir")
        assert type(pickle.loads(pickle.dumps(heir.Heir("hinge")))) is heir.Heir
    assert collections.Counter([heir.Heir])[pickle.loads(pickle.dumps(heir.Heir))] == 1
