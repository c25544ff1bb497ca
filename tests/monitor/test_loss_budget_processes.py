"""LossBudget in several processes: two of them are one with the joined batch."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.testing import assert_close

from fastgan.monitor import AdaptiveWeight, LossBudget
from tests.monitor.scenes import Cycle, Plain, Style, UNet, assert_gradients_equal, gradients, make
from tests.processes import run_script

SCRIPT = """
import sys, torch
from tests.monitor.test_loss_budget_processes import CASES, run

torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
found = {}
for name in CASES:
    found[name] = run(name, slice(2 * rank, 2 * rank + 2), distributed=True)
everything = [None, None]
torch.distributed.all_gather_object(everything, found)
if rank == 0:
    torch.save(everything, sys.argv[1])
torch.distributed.barrier()
"""
NETWORKS = ("generator", "critic", "mapping", "encoder")


class Large(UNet):
    batch = 4


PLAIN = {"l1": 1.0, "gan": 0.1, "perceptual": 3.0}
OF_L1 = {**PLAIN, "gan": AdaptiveWeight(("l1",))}
CYCLE = {"cycle": 1.0, "gan": 0.5, "idempotent": 2.0}
OF_CYCLE = {**CYCLE, "gan": AdaptiveWeight(("cycle",))}
OF_GAN = {"sparse": 1.0, "l1": AdaptiveWeight(("gan",)), "gan": 2.0}
# Kind, method, whether there is a layer, options.
CASES = {
    "numbers": (Plain, "backward", False, {"weights": PLAIN}),
    "numbers by loss": (Plain, "loss", False, {"weights": PLAIN}),
    "adaptive at the cut": (Plain, "backward", False, {"weights": OF_L1}),
    "adaptive at the layer": (Plain, "loss", True, {"weights": OF_L1}),
    "shares": (Plain, "backward", False, {"shares": PLAIN}),
    "shares by loss": (Plain, "loss", False, {"shares": PLAIN}),
    "cycle": (Cycle, "backward", False, {"weights": CYCLE}),
    "cycle by loss": (Cycle, "loss", True, {"weights": OF_CYCLE}),
    "style by loss": (Style, "loss", False, {"shares": {"style": 1.0, "l2": 2.0}}),
    "convolutions": (Large, "backward", True, {"weights": OF_GAN}),
}
STEPS = 2  # the second one with averages, and with what DDP rebuilds after its first


def run(name, rows=slice(None), distributed=False):
    """What a case gives for these rows of the batch: gradients averaged by DDP, measures of the last step."""
    kind, how, with_layer, options = CASES[name]
    scene, inputs = make(kind)
    plain = copy.copy(scene)
    plain._modules = dict(scene._modules)
    if distributed:
        for part in NETWORKS:
            # The generator and the heads, each by itself: D is trained beside G.
            if part in scene._modules:
                scene._modules[part] = torch.nn.parallel.DistributedDataParallel(scene._modules[part])
    budget = LossBudget(plain.layer if with_layer else None)
    for _ in range(STEPS):
        plain.zero_grad()
        terms = scene.terms(budget.cut, *(x[rows] for x in inputs))
        terms = {term: terms[term] for term in next(iter(options.values()))}
        if how == "backward":
            shares = budget.backward(terms, **options)
        else:
            loss, shares = budget.loss(terms, **options)
            loss.backward()
    of_networks = {n: grad for n, grad in gradients(plain).items() if n.split(".")[0] in NETWORKS}
    measures = {"gram": shares.gram, "weight": dict(shares.weight), "share": dict(shares.share)}
    return {"gradients": of_networks, "total": shares.total, **measures}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    run_script(SCRIPT, folder, folder / "found.pt", processes=2)
    return torch.load(folder / "found.pt")


@pytest.mark.parametrize("name", CASES)
def test_two_processes_are_one_with_the_joined_batch(found, name):
    expected = run(name)
    first, second = (each[name] for each in found)
    for actual in (first, second):
        assert_gradients_equal(actual["gradients"], expected["gradients"], 1e-5)
        for what in ("gram", "weight", "share"):
            assert_close(actual[what], expected[what], rtol=1e-5, atol=1e-9)
    assert torch.equal(first["gram"], second["gram"]) and first["weight"] == second["weight"]
    assert_close((first["total"] + second["total"]) / 2, expected["total"], rtol=1e-5, atol=1e-7)
    assert first["total"] != second["total"]
