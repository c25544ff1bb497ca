"""Moving averages: their arguments, decay and warm-up, replaced layers, wrapped models."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from fastgan import ops
from fastgan.optim import EMA, Adam, update_ema
from tests.optim.steps import assert_same, parameters, train


def test_update_ema_follows_parameters_and_copies_buffers():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    ema = EMA(model, decay=0.5, warmup=False)
    start = [p.clone() for p in ema.average.parameters()]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    model(torch.randn(2, 3, 8, 8))
    ema.update()
    for average, before in zip(ema.average.parameters(), start, strict=True):
        torch.testing.assert_close(average, before + 0.5)
    torch.testing.assert_close(ema.average[1].running_mean, model[1].running_mean)
    assert not ema.average.training and not any(p.requires_grad for p in ema.average.parameters())
    restored = EMA(model)
    restored.load_state_dict(ema.state_dict())
    assert restored.num_updates == 1
    assert_same(list(restored.average.parameters()), list(ema.average.parameters()), 0)


def test_averages_of_half_parameters_move():
    model = torch.nn.Linear(40, 40).bfloat16()
    ema = EMA(model, 0.999, warmup=False)
    assert ema.average.weight.dtype == torch.float32
    before = ema.average.weight.clone()
    with torch.no_grad():
        model.weight.add_(1)
    ema.update()
    torch.testing.assert_close(ema.average.weight, before + 1e-3 * (model.weight.float() - before))
    assert EMA(model, dtype=torch.bfloat16).average.weight.dtype == torch.bfloat16


def test_a_buffer_that_is_assigned_anew_is_still_copied():
    model = torch.nn.Linear(2, 2)
    model.register_buffer("mean", torch.zeros(2))
    ema = EMA(model)
    model.mean = torch.ones(2)
    ema.update()
    assert ema.average.mean.tolist() == [1, 1]


def test_parameters_outside_the_optimizer_are_averaged_too():
    model = torch.nn.ParameterList(parameters(torch.float64, [(3,), (3,)]))
    model[1].requires_grad_(False)
    ema = EMA(model, decay=0.5, warmup=False)
    optimizer = Adam([model[0]], ema=ema)
    with torch.no_grad():
        model[1].add_(2)
    train([model[0]], optimizer, 1)
    torch.testing.assert_close(ema.average[1], model[1] - 1)


# --- decay and warm-up ------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize(
    ("start", "decays"),
    [(None, [2 / 11, 3 / 12, 4 / 13, 0.35, 0.35]), (0, [1 / 10, 2 / 11, 3 / 12, 4 / 13, 0.35])],
)
def test_warmup_counts_from_its_start(start, decays, backend):
    """The default is that of pytorch_ema and LitEma, whose first decay is (1 + 1) / (10 + 1)."""
    model = nn.ParameterList([nn.Parameter(torch.ones(3, dtype=torch.float64))])
    ema = EMA(model, 0.35, **({} if start is None else {"warmup_start": start}))
    optimizer = Adam(model, lr=0.0, ema=ema)
    expected = model[0].detach().clone()
    for update, decay in enumerate(decays):
        with torch.no_grad():
            model[0] += 1
        if update % 2:
            with ops.use(backend):
                ema.update()
        else:
            with ops.use(backend):
                train([model[0]], optimizer, 1)
        expected = decay * expected + (1 - decay) * model[0].detach()
        torch.testing.assert_close(ema.average[0].detach(), expected, rtol=1e-12, atol=0)
        assert ema.num_updates == update + 1


@pytest.mark.parametrize("start", [0, 1, 5])
def test_a_restored_average_continues_its_count(start):
    model = nn.Linear(3, 3).double()
    ema = EMA(model, warmup_start=start)
    ema.update()
    restored = EMA(copy.deepcopy(model))
    restored.load_state_dict(copy.deepcopy(ema.state_dict()))
    assert (restored.num_updates, restored.updates) == (1, 1 + start)
    for each in (ema, restored):
        with torch.no_grad():
            each.model.weight.fill_(7.0)
        each.update()
    assert torch.equal(restored.average.weight, ema.average.weight)


def test_old_states_whose_count_began_at_0_continue_it():
    model = nn.Linear(1, 1, bias=False).double()
    ema = EMA(model)
    ema.load_state_dict({"average": {"weight": torch.zeros(1, 1).double()}, "num_updates": 2})
    with torch.no_grad():
        model.weight.fill_(1.0)
    ema.update()
    torch.testing.assert_close(ema.average.weight.item(), 1 - 3 / 12)
    assert ema.num_updates == 3


def test_decay_may_be_given_as_beta():
    model = nn.Linear(2, 2)
    assert EMA(model).decay == 0.999 and EMA(model, beta=0.9).decay == 0.9 == EMA(model, 0.9).decay
    average = copy.deepcopy(model).requires_grad_(False)
    with torch.no_grad():
        model.weight.add_(1)
    start = average.weight.clone()
    update_ema(model, average, beta=0.75)
    torch.testing.assert_close(average.weight, start + 0.25)
    update_ema(average=average, model=model, decay=np.float32(0.0))
    assert torch.equal(average.weight, model.weight)


def test_wrong_arguments_are_named():
    model, average = nn.Linear(2, 2), nn.Linear(2, 2)
    with pytest.raises(TypeError, match="give either decay or beta, .* got 0.9 and 0.9"):
        update_ema(model, average, 0.9, beta=0.9)
    with pytest.raises(TypeError, match="give either decay or beta, .* got None and None"):
        update_ema(model, average)
    with pytest.raises(TypeError, match="give either decay or beta"):
        EMA(model, 0.9, beta=0.9)
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\], got 1.5"):
        EMA(model, 1.5)
    with pytest.raises(ValueError, match=r"beta must lie in \[0, 1\], got nan"):
        EMA(model, beta=float("nan"))
    with pytest.raises(TypeError, match="decay must be a number, got str '0.9'"):
        update_ema(model, average, "0.9")
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got list"):
        EMA(list(model.parameters()))
    with pytest.raises(TypeError, match=r"average must be a torch.nn.Module, got dict"):
        update_ema(model, average.state_dict() and {}, 0.9)
    with pytest.raises(TypeError, match="warmup_start must be a whole number, got bool True"):
        EMA(model, warmup_start=True)
    with pytest.raises(ValueError, match="warmup_start must be at least 0, got -1"):
        EMA(model, warmup_start=-1)
    with pytest.raises(
        ValueError, match=r"differ in the shape of weight: torch.Size\(\[2, 2\]\), torch.Size\(\[3, 2\]\)"
    ):
        update_ema(model, nn.Linear(2, 3), 0.9)
    with pytest.raises(ValueError, match="differ in their parameters: bias"):
        update_ema(model, nn.Linear(2, 2, bias=False), 0.9)


# --- swapped arguments ------------------------------------------------------------------------------------


def generator():
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))


def backward(network):
    network(torch.randn(4, 2)).sum().backward()


def stylegan():
    """training_loop.py: between steps no parameter requires gradients, and those of the last step exist."""
    model = generator().train().requires_grad_(False)
    average = copy.deepcopy(model).eval()
    model.requires_grad_(True)
    backward(model)
    return model.requires_grad_(False), average


def stargan():
    """solver.py: the average is a deep copy in train mode that requires gradients, but has none."""
    model = generator()
    average = copy.deepcopy(model)
    backward(model)
    return model, average


def frozen_and_cleared():
    """The usual frozen average, updated after zero_grad."""
    model = generator()
    return model, copy.deepcopy(model).eval().requires_grad_(False)


def rosinality():
    """train.py: a second network in eval mode that requires gradients."""
    model, average = generator(), generator().eval()
    backward(model)
    return model, average


TRAINERS = [stylegan, stargan, frozen_and_cleared, rosinality]


@pytest.mark.parametrize("trainer", TRAINERS)
def test_swapped_arguments_are_refused(trainer):
    model, average = trainer()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"they look swapped; the order is update_ema\(model, average"):
        update_ema(average, model, 0.9)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    update_ema(model, average, 0.9)


def waiting_for_d():
    """BasicSR with net_d_iters: gradients are cleared, but G has not been updated."""
    model = generator()
    backward(model)
    average = generator().eval()
    model.zero_grad()
    return model, average


def copied_in_training():
    """The average is copied with gradients and then frozen; the gradients of the model are cleared."""
    model = generator()
    backward(model)
    average = copy.deepcopy(model).requires_grad_(False)
    model.zero_grad()
    return model, average


def toggled_off():
    """The model is frozen while D is trained; its average never was."""
    model = generator().requires_grad_(False)
    return model, generator().eval()


def indistinguishable():
    return generator().requires_grad_(False), generator().requires_grad_(False)


@pytest.mark.parametrize(
    "trainer", [*TRAINERS, waiting_for_d, copied_in_training, toggled_off, indistinguishable]
)
def test_arguments_in_order_are_accepted(trainer):
    model, average = trainer()
    update_ema(model, average, 0.0)
    for key, value in average.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key


def cleared_before_averaging(step):
    """A trainer that clears gradients before it updates the average, a copy that was never frozen."""
    model = generator()
    average = copy.deepcopy(model)
    optimizer = step(model.parameters())

    def train():
        backward(model)
        optimizer.step()
        model.zero_grad()

    return model, average, train


STEPS = [lambda p: torch.optim.SGD(p, 0.1), torch.optim.Adam, lambda p: torch.optim.Adam(p, foreach=False)]


@pytest.mark.parametrize("step", STEPS, ids=["SGD", "Adam", "Adam, one by one"])
def test_swapped_arguments_are_refused_from_the_second_call(step):
    model, average, train = cleared_before_averaging(step)
    train()
    update_ema(average, model, 0.9)
    train()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="since the last call average was changed, .* they look swapped"):
        update_ema(average, model, 0.9)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("step", [*STEPS, Adam], ids=["SGD", "Adam", "Adam, one by one", "fastgan's Adam"])
def test_arguments_in_order_are_accepted_at_every_call(step):
    model, average, train = cleared_before_averaging(step)
    for number in range(6):
        if number % 3 < 2:  # every third time without a step of G
            train()
        update_ema(model, average, 0.9)
    # After a checkpoint is loaded into both, and for another model, the average starts again.
    state = copy.deepcopy(model.state_dict())
    model.load_state_dict(state)
    average.load_state_dict(state)
    update_ema(model, average, 0.9)
    update_ema(generator(), average, 0.9)


def test_records_of_networks_do_not_keep_them_alive():
    model, average = generator(), generator()
    update_ema(model, average, 0.9)
    references = weakref.ref(model), weakref.ref(average)
    del model, average
    gc.collect()
    assert references[0]() is None and references[1]() is None


# --- replaced layers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [lambda: nn.Linear(2, 2), lambda: nn.Linear(2, 3), lambda: nn.Identity()])
def test_a_layer_replaced_before_the_first_update_is_named(layer):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    ema = EMA(model)
    model[1] = layer()
    with pytest.raises(
        ValueError, match=r"other parameters .* average: 1.bias, 1.weight. Replace layers first"
    ):
        ema.update()
    _, ema_copy = copy.deepcopy((model, ema))
    if not isinstance(model[1], nn.Linear) or model[1].out_features != 2:
        with pytest.raises(ValueError, match=r"1.bias, 1.weight"):
            ema_copy.update()


def test_new_parameters_of_the_same_layers_are_averaged():
    """Such as load_state_dict(assign=True), conversions, FSDP2 and copies create."""
    model = generator()
    ema = EMA(model, 0.0, warmup=False)
    model.load_state_dict(generator().state_dict(), assign=True)
    for owner, each in ((model, ema), copy.deepcopy((model, ema)), pickle.loads(pickle.dumps((model, ema)))):
        each.update()
        for average, parameter in zip(each.average.parameters(), owner.parameters(), strict=True):
            assert torch.equal(average, parameter)


def load_assigned(model):
    model.load_state_dict(generator().state_dict(), assign=True)


def replace_a_parameter(model):
    model[0].weight = nn.Parameter(torch.full_like(model[0].weight, 3.0))


def converter(setting):
    def convert(model):
        before = getattr(torch.__future__, f"get_{setting}")()
        change = getattr(torch.__future__, f"set_{setting}")
        change(True)
        try:
            model.double()
        finally:
            change(before)

    return convert


def compile_a_layer(model):
    model[0] = compiled(model[0])


CHANGES = {
    "assigned": load_assigned,
    "replaced": replace_a_parameter,
    "overwritten": converter("overwrite_module_params_on_conversion"),
    "swapped": converter("swap_module_params_on_conversion"),
    "wrapped": compile_a_layer,
}


@pytest.mark.parametrize("change", CHANGES)
def test_parameters_that_are_new_after_an_update_are_averaged(change):
    model = generator()
    ema = EMA(model, 0.0, warmup=False)
    ema.update()
    CHANGES[change](model)
    for step in range(2):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(step + 1)
        ema.update()
        for average, parameter in zip(ema.average.parameters(), model.parameters(), strict=True):
            assert torch.equal(average, parameter.float())
    model[0].bias = nn.Parameter(torch.full_like(model[0].bias, 5.0))
    assert ema.average_of(model[0].bias) is ema.average[0].bias


@pytest.mark.parametrize("copy_of", [lambda both: both, copy.deepcopy])
@pytest.mark.parametrize("layer", [lambda: nn.Linear(2, 2), lambda: nn.Linear(2, 3), lambda: nn.Identity()])
def test_a_layer_replaced_after_an_update_is_named(layer, copy_of):
    model, ema = copy_of((lambda model: (model, EMA(model)))(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))))
    ema.update()
    model[1] = layer()
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"other parameters .* average: 1.bias, 1.weight. Replace layers first"
        ):
            ema.update()


def test_a_layer_added_after_an_update_is_named():
    model = nn.Sequential(nn.Linear(2, 2))
    ema = EMA(model)
    ema.update()
    model.append(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"average: 1.bias, 1.weight. Replace layers first"):
        ema.update()


def test_parameters_that_are_no_longer_shared_are_named():
    """load_state_dict(assign=True) creates a parameter for each name."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    ema = EMA(model)
    ema.update()
    model.load_state_dict(copy.deepcopy(model).state_dict(), assign=True)
    assert model[1].weight is not model[0].weight
    with pytest.raises(ValueError, match=r"average: 1.weight. Replace"):
        ema.update()


def test_an_optimizer_of_parameters_that_have_been_replaced_is_refused():
    model = generator()
    ema = EMA(model, 0.0, warmup=False)
    optimizer = Adam(model.parameters(), 0.1, ema=ema)
    backward(model)
    optimizer.step()
    load_assigned(model)
    before = copy.deepcopy(ema.average.state_dict())
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"parameters that the Sequential had .*, got 6 that have been replaced since"
        ):
            optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in ema.average.state_dict().items())
    optimizer = Adam(model.parameters(), 0.1, ema=ema)
    backward(model)
    optimizer.step()
    for average, parameter in zip(ema.average.parameters(), model.parameters(), strict=True):
        assert torch.equal(average, parameter)


def test_the_search_for_new_parameters_does_not_walk_through_modules(monkeypatch):
    model = generator()
    ema = EMA(model)
    ema.update()
    for name in ("named_modules", "modules", "named_parameters", "parameters"):
        monkeypatch.setattr(nn.Module, name, None)
    ema.update()


def test_an_average_pickled_before_warmup_start_existed_counts_from_0():
    model = nn.Linear(1, 1, bias=False).double()
    ema = EMA(model, warmup_start=0)
    state = ema.__getstate__()
    for name in ("warmup_start", "_pairs", "_parts"):
        del state[name]
    state["updates"] = state["updates"] + 2
    old = EMA.__new__(EMA)
    old.__setstate__(state)
    assert old.num_updates == 2
    before = old.average.weight.item()
    with torch.no_grad():
        model.weight.add_(1.0)
    old.update()
    torch.testing.assert_close(old.average.weight.item(), before + 1 - 3 / 12)
    assert copy.deepcopy(old).num_updates == old.num_updates == 3


# --- wrapped models ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    file = tmp_path_factory.mktemp("group") / "store"
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def compiled(network):
    return torch.compile(network, backend="eager")


WRAPPERS = {
    "DataParallel": nn.DataParallel,
    "DistributedDataParallel": nn.parallel.DistributedDataParallel,
    "compile": compiled,
    "DDP(compile)": lambda network: nn.parallel.DistributedDataParallel(compiled(network)),
    "compile(DataParallel)": lambda network: compiled(nn.DataParallel(network)),
    "inside": lambda network: nn.ModuleDict({"g": nn.DataParallel(network), "m": compiled(nn.Linear(2, 2))}),
}


def bare(wrapper, network):
    """The same network without the wrapper."""
    return nn.ModuleDict({"g": network, "m": nn.Linear(2, 2)}) if wrapper == "inside" else network


@pytest.mark.parametrize("wrapper", sorted(WRAPPERS))
@pytest.mark.parametrize("wrapped", ["model", "average", "both"])
def test_update_ema_pairs_wrapped_models(one_process, wrapper, wrapped):
    sides = {}
    for name in ("model", "average"):
        network = generator()
        wraps = wrapped in (name, "both")
        sides[name] = WRAPPERS[wrapper](network) if wraps else bare(wrapper, network)
    sides["average"].requires_grad_(False)
    with torch.no_grad():
        for number, buffer in enumerate(sides["model"].buffers()):
            buffer.fill_(number + 1)
    update_ema(sides["model"], sides["average"], 0.0)
    for kind in ("parameters", "buffers"):
        pairs = zip(*(getattr(side, kind)() for side in sides.values()), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("wrapper", sorted(WRAPPERS))
def test_the_average_of_a_wrapped_model_is_the_bare_network(one_process, wrapper):
    network = generator()
    model = WRAPPERS[wrapper](network)
    ema = EMA(model, 0.5, warmup=False)
    expected = bare(wrapper, network)
    assert ema.average.state_dict().keys() == expected.state_dict().keys()
    assert [type(part) for part in ema.average.modules()] == [type(part) for part in expected.modules()]
    start = [p.clone() for p in ema.average.parameters()]
    optimizer = Adam(model.parameters(), 0.1, ema=ema)
    callable_model = model["g"] if wrapper == "inside" else model
    callable_model(torch.randn(4, 2)).sum().backward()
    optimizer.step()
    for average, before, parameter in zip(ema.average.parameters(), start, model.parameters(), strict=True):
        torch.testing.assert_close(average, before.lerp(parameter.detach(), 0.5))
    average_norm = ema.average["g"][1] if wrapper == "inside" else ema.average[1]
    assert torch.equal(average_norm.running_mean, network[1].running_mean)
    buffers = list(ema.average.buffers())
    assert all(torch.equal(a, b) for a, b in zip(buffers, model.buffers(), strict=True))


def test_a_user_s_module_named_module_is_no_wrapper():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Linear(2, 2)

        def forward(self, x):
            return 3 * self.module(x)

    model = Scaled()
    ema = EMA(model)
    assert isinstance(ema.average, Scaled)
    other = EMA(model)
    other.load_state_dict(ema.state_dict())
    update_ema(model, ema.average, 0.5)


def test_differences_of_wrapped_models_are_named_as_in_the_network():
    with pytest.raises(ValueError, match="differ in their parameters: bias$"):
        update_ema(nn.DataParallel(nn.Linear(2, 2)), nn.Linear(2, 2, bias=False), 0.9)
    with pytest.raises(ValueError, match="does not update, got a list of .* without 0.weight, 0.bias. For"):
        Adam(parameters(), ema=EMA(compiled(nn.Sequential(nn.DataParallel(nn.Linear(2, 2))))))


def test_a_state_saved_of_a_wrapped_model_is_loaded():
    network = nn.Linear(2, 2)
    saved = {"average": nn.DataParallel(nn.Linear(2, 2)).state_dict(), "num_updates": 4}
    ema = EMA(network)
    ema.load_state_dict(saved)
    assert torch.equal(ema.average.weight, saved["average"]["module.weight"])


def test_an_average_created_in_training_has_no_gradients():
    model = generator()
    backward(model)
    assert all(parameter.grad is None for parameter in EMA(model).average.parameters())


# --- several optimizers -----------------------------------------------------------------------------------


def test_networks_of_several_optimizers_share_an_average_by_update():
    networks = nn.ModuleDict({"generator": nn.Linear(2, 2), "mapping": nn.Linear(3, 3)}).double()
    ema = EMA(networks, 0.9)
    with pytest.raises(
        ValueError,
        match=r"update, got a list of .* without mapping.weight, mapping.bias. For networks of several "
        r"optimizers .* "
        r"call EMA.update\(\) once per iteration",
    ):
        Adam(networks["generator"].parameters(), ema=ema)
    optimizers = [Adam(network.parameters(), 0.1) for network in networks.values()]
    expected = copy.deepcopy(networks)
    for update in range(1, 4):
        for network, optimizer in zip(networks.values(), optimizers, strict=True):
            train(list(network.parameters()), optimizer, 1, first=update)
        ema.update()
        with torch.no_grad():
            for average, parameter in zip(expected.parameters(), networks.parameters(), strict=True):
                average.lerp_(parameter, 1 - (1 + update) / (10 + update))
    assert ema.num_updates == 3
    assert_same(list(ema.average.parameters()), list(expected.parameters()), 1e-12)


def test_an_optimizer_of_replaced_parameters_is_named_at_its_first_step():
    model = nn.Linear(2, 1)
    optimizer = Adam(model.parameters(), 0.1, ema=EMA(model))
    model.load_state_dict({name: value.clone() for name, value in model.state_dict().items()}, assign=True)
    model(torch.ones(1, 2)).sum().backward()
    with pytest.raises(ValueError, match="does not update.*without bias, weight|without weight, bias"):
        optimizer.step()


def test_an_average_whose_own_parameters_are_replaced_continues():
    model = nn.Linear(2, 1)
    ema = EMA(model, 0.5, warmup=False)
    ema.update()
    zeros = {name: torch.zeros_like(value) for name, value in ema.average.state_dict().items()}
    ema.average.load_state_dict(zeros, assign=True)
    ema.update()
    torch.testing.assert_close(ema.average.weight, model.weight / 2, check_stride=False)
