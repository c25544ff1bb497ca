"""`fastgan.patch` on libraries that the tests write themselves."""

from __future__ import annotations

import importlib
import pickle
import random
import re
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import fastgan
from fastgan.compat import starganv2
from fastgan.patching import _declare
from tests.patching.libraries import PACKAGES, SOLVER
from tests.processes import ROOT


def contents(module):
    return dict(vars(importlib.import_module(module)))


def logits():
    return torch.linspace(-3, 3, 7)


def test_functions_are_replaced_wherever_they_were_imported_to(packages):
    solver, trainer = importlib.import_module("core.solver"), importlib.import_module("train_starganv2")
    original, expected = solver.adv_loss, solver.step(logits())
    report = fastgan.patch("starganv2", quiet=True)
    assert solver.adv_loss is not original and solver.adv_loss.__code__ is starganv2.adv_loss.__code__
    places = (trainer.adv_loss, trainer.renamed, trainer.LOSSES["adversarial"], vars(trainer.Trainer)["loss"])
    assert all(place is solver.adv_loss for place in places)
    assert_close(solver.step(logits()), expected)
    assert report.replaced == [f"core.solver.{name}" for name in ("adv_loss", "r1_reg", "moving_average")]
    assert not report.waiting


def test_unpatch_restores_the_same_objects_in_modules_imported_before_and_after(packages):
    solver = importlib.import_module("core.solver")
    before = contents("core.solver")
    report = fastgan.patch("starganv2", quiet=True)
    trainer = importlib.import_module("train_starganv2")
    assert trainer.adv_loss is solver.adv_loss is not before["adv_loss"]
    report.unpatch()
    after = contents("core.solver")
    assert list(after) == list(before) and all(after[name] is before[name] for name in before)
    assert (
        trainer.renamed is trainer.LOSSES["adversarial"] is vars(trainer.Trainer)["loss"] is solver.adv_loss
    )
    report.unpatch()
    fastgan.unpatch()


def test_nothing_else_changes(packages):
    importlib.import_module("train_starganv2")
    modules = ("core.solver", "train_starganv2", "torch", "torch.nn.functional", "os")
    before = {module: contents(module) for module in modules}
    classes = dict(vars(before["train_starganv2"]["Trainer"]))
    fastgan.patch("starganv2", quiet=True)
    changed = {
        f"{module}.{name}"
        for module in modules
        for name, value in contents(module).items()
        if value is not before[module].get(name)
    }
    assert changed == {
        *(f"core.solver.{name}" for name in ("adv_loss", "r1_reg", "moving_average")),
        *(f"train_starganv2.{name}" for name in ("adv_loss", "renamed", "r1_reg", "moving_average")),
    }
    trainer = vars(sys.modules["train_starganv2"].Trainer)
    assert {name for name in trainer if trainer[name] is not classes[name]} == {"loss"}


def test_modules_that_are_imported_later_are_patched_and_keep_their_loader(packages):
    report = fastgan.patch("starganv2", quiet=True)
    assert "core.solver.adv_loss" in report.waiting and "core" not in sys.modules
    solver = importlib.import_module("core.solver")
    assert not report.waiting and "core.solver.adv_loss" in report.replaced
    assert solver.adv_loss.__code__ is starganv2.adv_loss.__code__
    other = importlib.import_module("train_starganv2")
    assert type(solver.__loader__) is type(other.__loader__) is type(solver.__spec__.loader)


def test_a_reloaded_module_is_patched_again(packages):
    solver = importlib.import_module("core.solver")
    fastgan.patch("starganv2", quiet=True)
    importlib.reload(solver)
    assert solver.adv_loss.__code__ is starganv2.adv_loss.__code__
    fastgan.unpatch()
    assert solver.adv_loss.__code__ is not starganv2.adv_loss.__code__


@pytest.mark.parametrize("first", ["patch", "import"])
def test_classes_are_replaced_in_registries_too(packages, first):
    if first == "import":
        importlib.import_module("basicsr.losses")
    with fastgan.patch("basicsr", quiet=True) as report:
        losses = importlib.import_module("basicsr.losses")
        registry = importlib.import_module("basicsr.utils.registry").LOSS_REGISTRY
        assert issubclass(losses.GANLoss, fastgan.compat.basicsr.GANLoss)
        assert registry._obj_map["GANLoss"] is losses.GANLoss is losses.gan_loss.GANLoss
        assert "basicsr.losses.gan_loss.GANLoss" in report.replaced
        loss = losses.GANLoss("hinge")
        assert type(pickle.loads(pickle.dumps(loss))) is losses.GANLoss
    assert not issubclass(losses.GANLoss, fastgan.compat.basicsr.GANLoss)
    assert registry._obj_map["GANLoss"] is losses.GANLoss


def test_pixel_losses_are_replaced_but_not_one_of_other_values(packages):
    report = fastgan.patch("basicsr", quiet=True)
    module = importlib.import_module("basicsr.losses.basic_loss")
    assert report.kept["basicsr.losses.basic_loss.MSELoss"].startswith("it gives other values")
    # It derives from an L1Loss that calls itself by its name, which is therefore kept with it.
    assert "MSELoss derives from it" in report.kept["basicsr.losses.basic_loss.L1Loss"]
    assert "basicsr.losses.basic_loss.WeightedTVLoss" in report.replaced
    assert issubclass(module.WeightedTVLoss, fastgan.compat.basicsr.WeightedTVLoss)
    assert "has no CharbonnierLoss" in report.kept["basicsr.losses.basic_loss.CharbonnierLoss"]


def test_instances_of_the_original_are_instances_of_what_stands_in_for_it(packages):
    losses = importlib.import_module("basicsr.losses")
    before = losses.GANLoss("hinge")
    fastgan.patch("basicsr", quiet=True)
    assert isinstance(before, losses.GANLoss) and not isinstance(1, losses.GANLoss)
    assert isinstance(losses.GANLoss("hinge"), losses.GANLoss)

    class Derived(losses.GANLoss):
        pass

    assert not isinstance(before, Derived) and isinstance(Derived("hinge"), losses.GANLoss)
    assert_close(Derived("hinge")(logits(), True, True), before(logits(), True, True))


def test_a_class_with_an_heir_that_would_break_is_kept(packages, write):
    """`super(GANLoss, self)` of the original looks the name up, and would find ours."""
    write({"heir.py": "from basicsr.losses import GANLoss\nclass Heir(GANLoss):\n    pass\n"})
    heir = importlib.import_module("heir")
    report = fastgan.patch("basicsr", quiet=True)
    assert "heir.Heir derives from it" in report.kept["basicsr.losses.gan_loss.GANLoss"]
    heir.Heir("hinge")


KEPT = {
    "another signature": (
        "def adv_loss(logits, target)",
        "def adv_loss(target, logits)",
        "signature differs",
    ),
    "another default": ("beta=0.999", "beta=0.99", "signature differs: (model, model_test, beta=0.99)"),
    "another formula": ("0.5 * gradient", "1.0 * gradient", "other values"),
    "draws": ("return 0.5 *", "return 0 * torch.rand(1)[0] + 0.5 *", "draws other random numbers"),
    "a missing name": ("def r1_reg", "def another_name", "core.solver has no r1_reg"),
    "a shape": (".sum(1).mean(0)", ".sum(1)", "other shapes"),
    "an error": ("gradient = torch", "gradient = missing", "cannot be compared: NameError"),
    "a class": (
        "def adv_loss(logits, target):\n",
        "class adv_loss:\n  def __init__(self, logits, target):\n",
        "no function",
    ),
}


@pytest.mark.parametrize("case", sorted(KEPT))
def test_what_is_not_the_published_function_is_kept_and_the_reason_given(write, case):
    old, new, reason = KEPT[case]
    write({**PACKAGES, "core/solver.py": SOLVER.replace(old, new)})
    before = contents("core.solver")
    report = fastgan.patch("starganv2", quiet=True)
    (path,) = [path for path, because in report.kept.items() if reason in because]
    name = path.removeprefix("core.solver.")
    assert contents("core.solver").get(name) is before.get(name) and path not in report.replaced


def test_comparing_changes_no_random_generator_and_no_mode(packages):
    importlib.import_module("core.solver")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    numpy = np.random.mtrand._rand  # the global generator, of which trainers draw
    states = random.getstate(), numpy.get_state()[1].copy()
    with torch.no_grad():
        report = fastgan.patch("starganv2", quiet=True)
        assert not torch.is_grad_enabled()
    assert len(report.replaced) == 3
    assert_close(torch.rand(3), expected, rtol=0, atol=0)
    assert random.getstate() == states[0] and (numpy.get_state()[1] == states[1]).all()


def test_comparing_does_not_seed_gpus(packages, monkeypatch):
    """Neither now nor later: what seeds them before they are used is kept until then."""
    importlib.import_module("core.solver")
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail(f"seeds GPUs with {seed}"))
    assert fastgan.patch("starganv2", quiet=True).replaced


def test_the_list_is_printed_once(packages, capsys):
    importlib.import_module("core.solver")
    report = fastgan.patch("starganv2")
    printed = capsys.readouterr().out
    assert printed == f"{report}\n"
    assert printed.splitlines()[:2] == ["fastgan.patch('starganv2')", "  replaced: core.solver.adv_loss"]
    importlib.import_module("train_starganv2")
    with fastgan.patch("basicsr", quiet=True):
        importlib.import_module("basicsr.losses")
    assert capsys.readouterr().out == ""


def test_what_a_later_import_turns_out_not_to_have_is_printed(write, capsys):
    write({**PACKAGES, "core/solver.py": SOLVER.replace("def r1_reg", "def another_name")})
    fastgan.patch("starganv2")
    capsys.readouterr()
    importlib.import_module("core.solver")
    assert capsys.readouterr().out == (
        "fastgan.patch: not replaced: core.solver.r1_reg: core.solver has no r1_reg\n"
    )


def test_patches_nest_and_end_in_any_order(packages):
    solver, losses = importlib.import_module("core.solver"), importlib.import_module("basicsr.losses")
    originals = solver.adv_loss, losses.GANLoss
    outer = fastgan.patch("starganv2", quiet=True)
    with fastgan.patch("basicsr", quiet=True):
        assert losses.GANLoss is not originals[1]
    assert losses.GANLoss is originals[1] and solver.adv_loss is not originals[0]
    inner = fastgan.patch("basicsr", quiet=True)
    outer.unpatch()
    assert solver.adv_loss is originals[0] and losses.GANLoss is not originals[1]
    inner.unpatch()
    assert losses.GANLoss is originals[1]


def test_a_context_puts_back_after_an_error(packages):
    solver = importlib.import_module("core.solver")
    original = solver.adv_loss
    with pytest.raises(RuntimeError, match="stop"), fastgan.patch("starganv2", quiet=True):
        raise RuntimeError("stop")
    assert solver.adv_loss is original


def test_what_somebody_else_has_put_in_its_place_is_left_alone(packages):
    solver = importlib.import_module("core.solver")
    fastgan.patch("starganv2", quiet=True)
    solver.adv_loss = logits
    fastgan.unpatch()
    assert solver.adv_loss is logits


def test_our_own_names_in_a_trainer_stay_ours(packages, write):
    write({"own.py": "from fastgan.compat.starganv2 import adv_loss\n"})
    own = importlib.import_module("own")
    importlib.import_module("core.solver")
    with fastgan.patch("starganv2", quiet=True):
        assert own.adv_loss is starganv2.adv_loss
    assert own.adv_loss is starganv2.adv_loss


def test_two_patches_of_one_name_say_so(write):
    """The losses of ldm take its functions from taming-transformers."""
    files = {f"taming/{path}__init__.py": "" for path in ("", "modules/", "modules/losses/")}
    text = "import torch\ndef {}(logits_real, logits_fake):\n    return 0.5 * ({})\n"
    hinge = "torch.relu(1 - logits_real).mean() + torch.relu(1 + logits_fake).mean()"
    write({**files, "taming/modules/losses/vqperceptual.py": text.format("hinge_d_loss", hinge)})
    module = importlib.import_module("taming.modules.losses.vqperceptual")
    path = "taming.modules.losses.vqperceptual.hinge_d_loss"
    first = fastgan.patch("taming", quiet=True)
    second = fastgan.patch("ldm", quiet=True)
    assert path in first.replaced and second.kept[path] == "another patch has replaced it"
    second.unpatch()
    assert vars(module.hinge_d_loss)["_stands_in_for"]


def test_threads_that_patch_and_import_end_as_one_would(packages):
    errors = []

    def run(name):
        try:
            for _ in range(20):
                with fastgan.patch(name, quiet=True):
                    importlib.import_module("core.solver").step(logits())
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(name,)) for name in ("starganv2", "basicsr", "r3gan")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and not hasattr(importlib.import_module("core.solver").adv_loss, "_stands_in_for")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("starganv3",), "names must be of basicsr, .*zi2zi, got 'starganv3'"),
        ((1,), "names must be of .*, got 1"),
        ((), "one or several different ones"),
        (("ldm", "ldm"), "one or several different ones"),
    ],
)
def test_unusable_names_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        fastgan.patch(*names)


def test_a_second_patch_of_a_library_is_refused():
    fastgan.patch("starganv2", quiet=True)
    with pytest.raises(ValueError, match="starganv2 is patched already"):
        fastgan.patch("r3gan", "starganv2", quiet=True)
    with pytest.raises(TypeError, match="quiet must be True or False"):
        fastgan.patch("r3gan", quiet="yes")


def test_patch_imports_no_library():
    code = (
        "import sys, fastgan\n"
        "from fastgan.patching import _declare\n"
        "heavy = {'torchvision', 'lpips', 'kornia', 'taming', 'core', 'basicsr'}\n"
        "assert not {'fastgan.patching.targets', 'fastgan.compat'} & set(sys.modules)\n"
        "fastgan.patch(*_declare.names(), quiet=True)\n"
        "print(heavy & set(sys.modules))\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.stdout == "set()\n", finished.stderr


def test_a_script_is_patched_after_its_functions(tmp_path):
    """The losses of rosinality and of PyTorch-GAN stand in the script that is run."""
    script = tmp_path / "script.py"
    script.write_text(
        "import fastgan\n"
        "from torch.nn import functional as F\n"
        "import numpy as np, torch\n"
        "def g_nonsaturating_loss(fake_pred):\n"
        "    return F.softplus(-fake_pred).mean()\n"
        "def compute_gradient_penalty(D, real_samples, fake_samples):\n"
        "    alpha = torch.Tensor(np.random.random((len(real_samples), 1, 1, 1)))\n"
        "    x = (alpha * real_samples + (1 - alpha) * fake_samples).requires_grad_(True)\n"
        "    (gradient,) = torch.autograd.grad(D(x).sum(), x, create_graph=True)\n"
        "    return ((gradient.flatten(1).norm(2, dim=1) - 1) ** 2).mean()\n"
        "report = fastgan.patch('rosinality', 'pytorch_gan', quiet=True)\n"
        "print(report.replaced, hasattr(g_nonsaturating_loss, '_stands_in_for'))\n"
    )
    finished = subprocess.run([sys.executable, script], capture_output=True, text=True)
    expected = "['__main__.g_nonsaturating_loss', '__main__.compute_gradient_penalty'] True\n"
    assert finished.stdout == expected, finished.stderr


@pytest.mark.parametrize("name", _declare.names())
def test_each_library_is_declared_with_reasons_for_what_it_keeps(name):
    target = _declare.target_of(name)
    assert target.name == name and (target.replacements or target.kept)
    assert len({r.path for r in target.replacements}) == len(target.replacements)
    for replacement in target.replacements:
        assert (replacement.ours is None) is not (replacement.adapt is None)
        assert replacement.probe is not None or replacement.name in ("LPIPS.forward", "DISTS.forward")
    assert all(kept.because for kept in target.kept)


def test_the_readme_counts_the_libraries_that_have_something_replaced():
    served = {name.partition(".")[0] for name in _declare.names() if _declare.target_of(name).replacements}
    (count,) = re.findall(r"(\d+) libraries and trainers", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert int(count) == len(served)
