"""Penalties of a discriminator that FSDP2 (`fully_shard`) spreads over two processes."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from fastgan.losses import R1, check_supports_penalty, gradient_penalty, r1_penalty_of
from tests.processes import run_script

SCRIPT = """
import sys, warnings, torch
from torch.nn import functional as F
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from fastgan.losses import R1, r1_penalty_of
from fastgan.optim import Adam
from tests.losses.test_penalties_fsdp import CASES, OPTIONS, critic, images, step

torch.distributed.init_process_group("gloo")
mesh = init_device_mesh("cpu", (2,))
rank = torch.distributed.get_rank()
mine = slice(2 * rank, 2 * rank + 2)

def sharded(how, **options):
    network = critic()
    for part in network if how == "blocks" else ():
        if any(True for _ in part.parameters()):
            fully_shard(part, mesh=mesh, **options)
    return fully_shard(network, mesh=mesh, **options)

out = {}
for case in CASES:
    how, reshard_after_forward, penalty, order = case
    network = sharded(how, reshard_after_forward=reshard_after_forward)
    optimizer = Adam(network.parameters(), **OPTIONS)
    for number in range(3):
        step(network, optimizer, penalty, order, *(x[mine] for x in images(number)))
    out[case] = [p.full_tensor().detach() for p in optimizer.param_groups[0]["params"]]

# With torch's own setting, penalties may also come first; freeing the parameters is then the user's to do.
network = sharded("blocks")
network.set_reshard_after_backward(False)
optimizer = Adam(network.parameters(), **OPTIONS)
for number in range(3):
    step(network, optimizer, "r1", "first", *(x[mine] for x in images(number)))
    for part in network.modules():
        if isinstance(part, FSDPModule):
            part.reshard()
out["the user's setting"] = [p.full_tensor().detach() for p in optimizer.param_groups[0]["params"]]

# A penalty whose value is looked at only, and one that fails on the way.
network = sharded("blocks")
optimizer = Adam(network.parameters(), **OPTIONS)
out["looked at"] = []
for number in range(2):
    real, _, _ = (x[mine] for x in images(number))
    logits = network(real)
    out["looked at"] += [logits.detach(), r1_penalty_of(network, real).detach()]
    F.softplus(logits).mean().backward()
    out["looked at"].append(r1_penalty_of(network, real).detach())
    try:
        r1_penalty_of(network, real, output=lambda logits: logits.detach())
    except ValueError as error:
        out["failed"] = str(error)
    out["still sharded"] = all(hasattr(p, "full_tensor") for p in network.parameters())
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1e-3)
    optimizer.step()
    optimizer.zero_grad()

def error_of(call):
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"

real, fake, _ = images(0)
network = sharded("blocks")
out["compiled"] = error_of(lambda: R1(network, 1.0, compile=True))
out["compiled by the user"] = error_of(
    lambda: torch.compile(lambda x: r1_penalty_of(network, x), fullgraph=True, backend="eager")(real[mine])
)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    half = sharded("whole", mp_policy=MixedPrecisionPolicy(torch.bfloat16, output_dtype=torch.float32))
    r1_penalty_of(half, real[mine]).backward()
out["warnings"] = [str(warning.message) for warning in caught if "bfloat16" in str(warning.message)]
if rank == 0:
    torch.save(out, sys.argv[1])
torch.distributed.barrier()
"""
OPTIONS = {"lr": 0.01, "betas": (0.0, 0.99)}
# Where the penalty is computed: before, between or after the other forward passes, or with a backward pass of
# its own.
ORDERS = ("first", "between", "last", "separate")
CASES = [*itertools.product(("whole", "blocks"), (True, False), ("r1", "wgan-gp", "zero", "both"), ORDERS)]


class Block(nn.Sequential):
    def __init__(self, inputs, outputs):
        super().__init__(nn.Conv2d(inputs, outputs, 3, 2, 1), nn.Softplus(), nn.Conv2d(outputs, outputs, 1))


def critic():
    torch.manual_seed(0)
    return nn.Sequential(Block(3, 8), Block(8, 8), nn.Flatten(), nn.Linear(8 * 16, 1))


def images(number):
    """Real and fake images of a step, and the weights by which WGAN-GP mixes them."""
    generator = torch.Generator().manual_seed(number)
    real, fake = torch.rand(2, 4, 3, 16, 16, generator=generator)
    return real, fake, torch.rand(4, 1, 1, 1, generator=generator)


def step(network, optimizer, penalty, order, real, fake, weight):
    optimizer.zero_grad()
    terms = {
        "r1": lambda: 5 * r1_penalty_of(network, real),
        # At points of the joined batch, since each process draws its own.
        "wgan-gp": lambda: 10 * gradient_penalty(network, torch.lerp(real, fake, weight), None, mode="real"),
        "zero": lambda: 10 * gradient_penalty(network, real, None, mode="real", center=0),
        # After a pass without gradients, as for a log.
        "both": lambda: terms["r1"]() + float(network(fake).detach().mean() * 0) + terms["wgan-gp"](),
    }
    losses = [lambda: F.softplus(network(fake)).mean(), lambda: F.softplus(-network(real)).mean()]
    if order == "separate":
        sum(loss() for loss in losses).backward()
        terms[penalty]().backward()
    else:
        losses.insert(("first", "between", "last").index(order), terms[penalty])
        sum(loss() for loss in losses).backward()
    optimizer.step()


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fsdp")
    run_script(SCRIPT, folder, folder / "out.pt", processes=2)
    return torch.load(folder / "out.pt")


def expected(penalty, order):
    from fastgan.optim import Adam

    network = critic()
    optimizer = Adam(network.parameters(), **OPTIONS)
    for number in range(3):
        step(network, optimizer, penalty, order, *images(number))
    return [p.detach() for p in network.parameters()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_sharded_penalties_equal_those_of_one_process(sharded, case):
    *_, penalty, order = case
    assert_close(sharded[case], expected(penalty, order), rtol=1e-4, atol=1e-6)


def test_a_setting_of_the_user_stays(sharded):
    """A block that is not freed is gathered anew only after its reshard()."""
    assert_close(sharded["the user's setting"], expected("r1", "first"), rtol=1e-4, atol=1e-6)


def test_a_penalty_without_a_backward_pass_leaves_no_old_parameters(sharded):
    network = critic()
    optimizer = torch.optim.Adam(network.parameters(), **OPTIONS)
    expected = []
    for number in range(2):
        real, _, _ = images(number)
        logits = network(real)
        expected += [logits[:2].detach(), r1_penalty_of(network, real[:2]).detach()]
        F.softplus(logits).mean().backward()
        expected.append(expected[-1])
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1e-3)
        optimizer.step()
        optimizer.zero_grad()
    assert_close(sharded["looked at"], expected, rtol=1e-4, atol=1e-6)
    assert sharded["still sharded"] and "without a graph" in sharded["failed"]


def test_a_compiled_penalty_of_a_sharded_discriminator_is_refused(sharded):
    assert sharded["compiled"].startswith("ValueError: compile=True cannot serve a discriminator that fully_")
    assert sharded["compiled by the user"] is not None


def test_a_penalty_that_fsdp_computes_in_half_precision_is_warned_of(sharded):
    (warning,) = sharded["warnings"]
    assert "some percent off" in warning and "param_dtype" in warning


def test_the_first_fsdp_is_refused():
    class FullyShardedDataParallel(nn.Linear):
        pass

    wrapped = FullyShardedDataParallel(3, 1)
    for use in (check_supports_penalty, lambda network: R1(network, 1.0)):
        with pytest.raises(ValueError, match="FullyShardedDataParallel .* use fully_shard"):
            use(wrapped)
