"""Parameters sharded over two processes: each updates its part, with the same result as one process."""

import torch

from fastgan.optim import EMA, Adam
from tests.processes import run_script

SCRIPT = """
import sys, torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from fastgan.optim import EMA, Adam, RMSprop
from tests.optim.test_shards import OPTIONS, network, step

torch.distributed.init_process_group("gloo")
mesh = init_device_mesh("cpu", (2,))
out = {}

model = network()
for part in model:
    fully_shard(part, mesh=mesh)
optimizer = Adam(fully_shard(model, mesh=mesh).parameters(), **OPTIONS, statistics=True)
for number in range(4):
    step(model, optimizer, number)
out["fsdp"] = [p.full_tensor() for p in model.parameters()], list(optimizer.statistics)

plain = network()
spread = nn.ParameterList(distribute_tensor(p.detach(), mesh, [Shard(0)]) for p in plain.parameters())
ema = EMA(spread, 0.9)
optimizer = Adam(spread, **OPTIONS, ema=ema)
for number in range(4):
    for p, q in zip(spread, plain.parameters()):
        q.data = p.full_tensor().detach()
    plain.zero_grad()
    step(plain, None, number)
    for p, q in zip(spread, plain.parameters()):
        p.grad = distribute_tensor(q.grad, mesh, [Shard(0)])
    optimizer.step()
out["ema"] = [p.full_tensor() for p in spread], [p.full_tensor() for p in ema.average]

spread[0].grad = spread[0].grad.redistribute(mesh, [Replicate()])
try:
    optimizer.step()
except ValueError as error:
    out["error"] = str(error)
if torch.distributed.get_rank() == 0:
    torch.save(out, sys.argv[1])
torch.distributed.barrier()
"""
OPTIONS = {"lr": 0.05, "grad_clip_norm": 0.5, "weight_clip": 0.3}


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 1))


def step(model, optimizer, number):
    generator = torch.Generator().manual_seed(number)
    if optimizer is not None:
        optimizer.zero_grad()
    model(torch.randn(8, 5, generator=generator)).exp().mean().backward()
    if optimizer is not None:
        optimizer.step()


def test_sharded_parameters_equal_those_of_one_process(tmp_path):
    run_script(SCRIPT, tmp_path, tmp_path / "out.pt", processes=2)
    out = torch.load(tmp_path / "out.pt")
    model = network()
    ema = EMA(model, 0.9)
    optimizer = Adam(model.parameters(), **OPTIONS, ema=ema, statistics=True)
    for number in range(4):
        step(model, optimizer, number)
    expected = [p.detach() for p in model.parameters()]
    torch.testing.assert_close([p.detach() for p in out["fsdp"][0]], expected)
    torch.testing.assert_close(out["fsdp"][1], list(optimizer.statistics))
    torch.testing.assert_close([p.detach() for p in out["ema"][0]], expected)
    torch.testing.assert_close(out["ema"][1], list(ema.average.parameters()))
    assert "redistribute the gradient" in out["error"]
