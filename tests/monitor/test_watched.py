"""Measures of networks' updates, by hooks on their optimizers."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
from torch import nn

from fastgan.monitor import Monitor
from fastgan.monitor.watched import Watched
from fastgan.optim import Adam, RMSprop

CPU = torch.device("cpu")


class Reports(dict):
    def __call__(self, name, value):
        self.setdefault(name, []).append(float(value))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 1))


def step(network, optimizer, scale=1.0):
    optimizer.zero_grad()
    (scale * network(torch.randn(8, 5)).square().mean()).backward()
    optimizer.step()


def saved(pair):
    file = io.BytesIO()
    torch.save(pair, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


OPTIMIZERS = {
    "torch's Adam": lambda params: torch.optim.Adam(params, 0.01),
    "Adam": lambda params: Adam(params, 0.01),
    "RMSprop": lambda params: RMSprop(params, 0.01),
    "SGD": lambda params: torch.optim.SGD(params, 0.01),
}


def norm(tensors):
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors]).norm().item()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_measures_are_those_of_the_update(network, optimizer):
    reports = Reports()
    optimizer = OPTIMIZERS[optimizer](network.parameters())
    watched = Watched(reports, interval=2)
    watched.add({"G": network}, [optimizer])
    for number in range(4):
        before = [p.detach().clone() for p in network.parameters()]
        step(network, optimizer)
        if number % 2 == 0:
            moved = [p.detach() - old for p, old in zip(network.parameters(), before, strict=True)]
            place = number // 2
            assert reports["G_update_ratio"][place] == pytest.approx(norm(moved) / norm(before), rel=1e-4)
            assert reports["G_weight_norm"][place] == pytest.approx(norm(before), rel=1e-5)
            gradients = [p.grad for p in network.parameters()]
            assert reports["G_gradient_norm"][place] == pytest.approx(norm(gradients), rel=1e-5)
    assert len(reports["G_update_ratio"]) == 2, "every second update"
    watched.finish()
    assert reports["G_untrained"] == [0.0]


def test_training_is_the_same_with_and_without(network):
    other = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 1))
    other.load_state_dict(network.state_dict())
    for each, is_watched in ((network, True), (other, False)):
        optimizer = Adam(each.parameters(), 0.01)
        watched = Watched(Reports(), interval=1)
        if is_watched:
            watched.add({"G": each}, [optimizer])
        torch.manual_seed(1)
        for _ in range(3):
            step(each, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))


def test_steps_are_chosen_by_the_trainer_if_it_wants(network):
    reports = Reports()
    optimizer = Adam(network.parameters(), 0.01)
    watched = Watched(reports)
    watched.add({"D": network}, [optimizer])
    for measures in (False, True, True, False):
        watched.measures = measures
        step(network, optimizer)
    assert len(reports["D_update_ratio"]) == 2


def test_weights_without_gradient_or_optimizer_are_untrained(network):
    sizes = [p.numel() for p in network.parameters()]
    reports = Reports()
    for p in network[0].parameters():
        p.requires_grad_(False)
    watched = Watched(reports)
    optimizer = Adam(network.parameters(), 0.01)  # has them, but they never get a gradient
    watched.add({"G": network}, [optimizer])
    step(network, optimizer)
    watched.finish()
    assert reports["G_untrained"] == [pytest.approx(sum(sizes[:2]) / sum(sizes))]

    reports.clear()
    watched = Watched(reports)
    for p in network.parameters():
        p.requires_grad_(True)
    optimizer = Adam(network[2].parameters(), 0.01)  # trained by nobody, although they get gradients
    watched.add({"G": network}, [optimizer])
    step(network, optimizer)
    watched.finish()
    assert reports["G_untrained"] == [pytest.approx(sum(sizes[:2]) / sum(sizes))]


def test_frozen_parts_in_no_optimizer_are_meant_to_stay(network):
    reports = Reports()
    network[0].requires_grad_(False)
    optimizer = Adam(network[2].parameters(), 0.01)
    watched = Watched(reports)
    watched.add({"D": network}, [optimizer])
    step(network, optimizer)
    watched.finish()
    assert reports["D_untrained"] == [0.0]


def test_a_network_in_no_optimizer_is_untrained(network):
    forgotten = nn.Linear(3, 1)
    reports = Reports()
    optimizer = Adam(network.parameters(), 0.01)
    watched = Watched(reports)
    watched.add({"G": network, "D": forgotten}, [optimizer])
    step(network, optimizer)
    watched.finish()
    assert reports["D_untrained"] == [1.0]
    assert "D_update_ratio" not in reports


def test_a_network_whose_turn_has_not_come_is_not_reported(network):
    critic = nn.Linear(3, 1)
    reports = Reports()
    optimizers = [Adam(network.parameters(), 0.01), Adam(critic.parameters(), 0.01)]
    watched = Watched(reports)
    watched.add({"G": network, "D": critic}, optimizers)
    step(network, optimizers[0])
    watched.finish()
    assert reports["G_untrained"] == [0.0] and "D_untrained" not in reports
    watched.finish()
    assert len(reports["G_untrained"]) == 1, "no update since"


def test_parts_that_take_turns_within_a_log_line_are_trained(network):
    reports = Reports()
    optimizer = Adam(network.parameters(), 0.01)
    watched = Watched(reports)
    watched.add({"G": network}, [optimizer])
    for part in (network[0], network[2]):
        network.requires_grad_(False)
        part.requires_grad_(True)
        step(network, optimizer)
    watched.finish()
    assert reports["G_untrained"] == [0.0]


def test_clipped_weights_are_at_the_bound(network):
    reports = Reports()
    with torch.no_grad():
        for p in network.parameters():
            p.clamp_(-0.1, 0.1)
    share = sum((p.abs() == 0.1).sum().item() for p in network.parameters())
    share /= sum(p.numel() for p in network.parameters())
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    Watched(reports).add({"D": network}, [optimizer])
    watched = Watched(reports)
    watched.add({"D": network}, [optimizer])
    step(network, optimizer)
    assert share > 0.3
    assert reports["D_at_bound"][0] == pytest.approx(share)


def test_an_optimizers_own_statistics_take_the_place_of_norms(network):
    reports = Reports()
    optimizer = Adam(network.parameters(), 0.01, statistics=True)
    watched = Watched(reports)
    watched.add({"D": network}, [optimizer])
    step(network, optimizer)
    assert "D_gradient_norm" not in reports and "D_weight_norm" not in reports
    assert "D_update_ratio" in reports


def test_a_skipped_update_moves_nothing(network):
    from fastgan.training.balance import step_where

    reports = Reports()
    optimizer = Adam(network.parameters(), 0.01)
    watched = Watched(reports, interval=1)
    watched.add({"D": network}, [optimizer])
    network(torch.randn(8, 5)).square().mean().backward()
    step_where(optimizer, torch.tensor(False))
    step_where(optimizer, torch.tensor(True))
    assert reports["D_update_ratio"][0] == 0 and reports["D_update_ratio"][1] > 0


def test_networks_are_free_once_nobody_else_holds_them(network):
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    watched = Watched(Reports())
    watched.add({"G": network}, [optimizer])
    reference = weakref.ref(watched)
    del watched
    gc.collect()
    assert reference() is None
    step(network, optimizer)  # without its hooks


def test_removed_hooks_report_nothing(network):
    reports = Reports()
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    watched = Watched(reports)
    watched.add({"G": network}, [optimizer])
    watched.remove()
    step(network, optimizer)
    assert not reports


def test_wrong_arguments_are_named(network):
    watched = Watched(Reports())
    with pytest.raises(TypeError, match="the network G must be a torch.nn.Module"):
        watched.add({"G": 3}, [])
    with pytest.raises(TypeError, match="optimizers must be a torch.optim.Optimizer or a list of them"):
        watched.add({"G": network}, [network])
    watched.add({"G": network}, [])
    with pytest.raises(ValueError, match="watched as G already"):
        watched.add({"G": network}, [])
    with pytest.raises(ValueError, match="interval must be at least 1, got 0"):
        Watched(Reports(), interval=0)


def test_parts_of_large_weights_stand_for_all_of_them():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(512, 512), nn.Linear(512, 1))
    reports = Reports()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    watched = Watched(reports, interval=1)
    watched.add({"G": network}, [optimizer])
    for _ in range(3):
        before = [p.detach().clone() for p in network.parameters()]
        optimizer.zero_grad()
        network(torch.randn(64, 512)).square().mean().backward()
        optimizer.step()
        moved = [p.detach() - old for p, old in zip(network.parameters(), before, strict=True)]
        assert reports["G_update_ratio"][-1] == pytest.approx(norm(moved) / norm(before), rel=0.05)
        assert reports["G_weight_norm"][-1] == pytest.approx(norm(before), rel=1e-5)


@pytest.mark.parametrize(
    "make", [lambda: nn.Parameter(torch.ones(())), lambda: nn.Parameter(torch.ones(1, 200000))]
)
def test_weights_of_one_row_are_measured_whole(make):
    parameter = make()
    network = nn.Module()
    network.register_parameter("weight", parameter)
    reports = Reports()
    optimizer = torch.optim.SGD([parameter], 0.5)
    watched = Watched(reports)
    watched.add({"G": network}, [optimizer])
    parameter.sum().backward()
    optimizer.step()
    assert reports["G_update_ratio"] == [pytest.approx(0.5)]


@pytest.mark.parametrize("rows", [slice(300, 400), slice(0, 100), slice(999, 1000)])
def test_an_embedding_of_which_a_few_rows_are_trained_moves(rows):
    torch.manual_seed(0)
    embedding = nn.Embedding(1000, 512)
    reports = Reports()
    optimizer = torch.optim.SGD(embedding.parameters(), 1.0)
    watched = Watched(reports, interval=1)
    watched.add({"G": embedding}, [optimizer])
    whole = []
    for _ in range(8):  # the stride between the rows of a part
        before = embedding.weight.detach().clone()
        optimizer.zero_grad()
        embedding.weight[rows].sum().backward()
        optimizer.step()
        whole.append(norm([embedding.weight - before]) / norm([before]))
    if rows == slice(999, 1000):
        assert sum(ratio > 0 for ratio in reports["G_update_ratio"]) == 1, "each row has its turn"
    else:
        assert reports["G_update_ratio"] == pytest.approx(whole, rel=0.15)


def test_a_network_may_be_spread_over_devices(monkeypatch):
    """The meta device stands for another accelerator: stacking its tensors with others' is an error too."""
    move = torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor,
        "to",
        lambda self, *given: torch.zeros(()) if self.is_meta and given == (CPU,) else move(self, *given),
    )
    network = nn.Sequential(nn.Linear(5, 7, device="meta"), nn.Linear(5, 7))
    reports = {}
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    watched = Watched(reports.__setitem__, interval=1)
    watched.add({"D": network}, [optimizer])
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert {"D_at_bound", "D_update_ratio", "D_weight_norm", "D_gradient_norm"} <= reports.keys()
    assert all(value.device.type == "meta" for value in reports.values())


def test_a_network_that_never_gets_a_gradient_is_not_trained(network):
    reports = Reports()
    watched, other = Watched(reports, interval=2), nn.Linear(5, 1)
    optimizers = [torch.optim.Adam(network.parameters()), torch.optim.Adam(other.parameters())]
    watched.add({"G": network, "D": other}, optimizers)
    for _ in range(4):
        step(other, optimizers[1])
        optimizers[0].step()  # its loss was taken of a detached tensor
    watched.finish()
    assert reports["G_untrained"] == [1.0] and reports["D_untrained"] == [0.0]


def test_averages_and_frozen_networks_are_not_meant_to_be_trained(network):
    reports, average = Reports(), nn.Linear(5, 1).requires_grad_(False)
    watched, optimizer = Watched(reports), torch.optim.Adam(network.parameters())
    watched.add({"D": network, "average": average}, [optimizer])
    step(network, optimizer)
    watched.finish()
    assert "average_untrained" not in reports and reports["D_untrained"] == [0.0]


class Wrapper(torch.optim.Optimizer):
    """As accelerate wraps optimizers: an Optimizer by its class, whose own hooks are not there."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    @property
    def param_groups(self):
        return self.optimizer.param_groups

    def zero_grad(self):
        self.optimizer.zero_grad()

    def step(self, closure=None):
        self.optimizer.step(closure)


def accelerated(optimizer):
    return pytest.importorskip("accelerate").Accelerator(cpu=True).prepare(optimizer)


class Holder:
    """As Lightning wraps them: no Optimizer at all."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.step, self.zero_grad = optimizer.step, optimizer.zero_grad


@pytest.mark.parametrize("wrap", [accelerated, Wrapper, Holder, lambda optimizer: Holder(Wrapper(optimizer))])
def test_wrapped_optimizers_are_watched_through_the_one_inside(network, wrap):
    monitor, optimizer = Monitor(), torch.optim.Adam(network.parameters(), 0.01)
    wrapped = wrap(optimizer)
    monitor.watch(generator=network, optimizers=[wrapped])
    step(network, wrapped)
    monitor.verdicts(step=1)
    assert monitor.diagnosis.history.row["G_update_ratio"] > 0
    assert monitor.diagnosis.history.row["G_untrained"] == 0


@pytest.mark.parametrize(
    "optimizers, got",
    [
        ([], r"list \[\]"),
        (3, "int 3"),
        ("adam", "str 'adam'"),
        (nn.Linear(2, 2), "Linear"),
        ([nn.Linear(2, 2)], "Linear"),
        ([[torch.optim.SGD(nn.Linear(2, 2).parameters())]], "list"),
    ],
)
def test_what_is_no_optimizer_is_named(network, optimizers, got):
    with pytest.raises(TypeError, match=f"optimizers must be a torch.optim.Optimizer or .*, got .*{got}"):
        Monitor().watch(generator=network, optimizers=optimizers)


def test_a_single_optimizer_is_taken_and_a_generator_of_them(network):
    for give in (lambda optimizer: optimizer, lambda optimizer: iter([optimizer])):
        monitor, optimizer = Monitor(), torch.optim.SGD(network.parameters(), 0.1)
        monitor.watch(generator=network, optimizers=give(optimizer))
        step(network, optimizer)
        monitor.verdicts(step=1)
        assert "G_update_ratio" in monitor.diagnosis.history.row


def test_complex_weights_are_measured_as_pairs_of_numbers():
    torch.manual_seed(0)
    network, reports = nn.Linear(3, 2, dtype=torch.complex64), Reports()
    network.register_parameter("large", nn.Parameter(torch.randn(300, 500, dtype=torch.complex64)))
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    watched = Watched(reports)
    watched.add({"D": network}, [optimizer])
    (network(torch.randn(4, 3, dtype=torch.complex64)).abs().sum() + network.large.abs().sum()).backward()
    before = [torch.view_as_real(p.detach()).clone() for p in network.parameters()]
    gradients = [torch.view_as_real(p.grad) for p in network.parameters()]
    optimizer.step()
    moved = [torch.view_as_real(p) - old for p, old in zip(network.parameters(), before, strict=True)]
    assert reports["D_weight_norm"] == [pytest.approx(norm(before), rel=1e-5)]
    assert reports["D_gradient_norm"] == [pytest.approx(norm(gradients), rel=1e-5)]
    assert reports["D_update_ratio"] == [pytest.approx(norm(moved) / norm(before), rel=0.05)]
    assert 0 < reports["D_at_bound"][0] < 1e-3
    watched.finish()
    assert reports["D_untrained"] == [0.0]


CLOSURES = {
    **OPTIMIZERS,
    "LBFGS": lambda params: torch.optim.LBFGS(params, 0.1, max_iter=3),
}


@pytest.mark.parametrize("optimizer", CLOSURES)
@pytest.mark.parametrize("is_named", [False, True])
@pytest.mark.parametrize("is_zeroed", ["before", "in the closure"])
def test_a_step_whose_closure_computes_the_gradients_is_measured(network, optimizer, is_named, is_zeroed):
    reports = Reports()
    optimizer = CLOSURES[optimizer](network.parameters())
    network[0].bias.requires_grad_(False)
    watched = Watched(reports, interval=2)
    watched.add({"G": network}, [optimizer])
    x = torch.randn(8, 5)

    def closure():
        optimizer.zero_grad()
        loss = network(x).square().mean()
        loss.backward()
        return loss

    trained = [p for p in network.parameters() if p.requires_grad]
    for number in range(4):
        before = [p.detach().clone() for p in trained]
        if is_zeroed == "before":
            optimizer.zero_grad()
        optimizer.step(closure=closure) if is_named else optimizer.step(closure)
        if number % 2 == 0:
            moved = [p.detach() - old for p, old in zip(trained, before, strict=True)]
            assert reports["G_update_ratio"][-1] == pytest.approx(norm(moved) / norm(before), rel=1e-4)
            assert reports["G_weight_norm"][-1] == pytest.approx(norm(before), rel=1e-5)
            assert reports["G_gradient_norm"][-1] == pytest.approx(norm([p.grad for p in trained]), rel=1e-5)
    assert len(reports["G_update_ratio"]) == len(reports["G_gradient_norm"]) == 2, "every second update"
    watched.finish()
    sizes = [p.numel() for p in network.parameters()]
    assert reports["G_untrained"] == [pytest.approx(sizes[1] / sum(sizes))]


def test_a_closure_that_fails_leaves_the_next_step_measured(network):
    reports = Reports()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    watched = Watched(reports, interval=1)
    watched.add({"G": network}, [optimizer])
    with pytest.raises(RuntimeError, match="out of memory"):
        optimizer.step(lambda: (_ for _ in ()).throw(RuntimeError("out of memory")))
    step(network, optimizer)
    assert len(reports["G_update_ratio"]) == 1


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair)), saved])
def test_what_is_watched_may_be_copied_and_copies_are_not_watched(network, optimizer, copied):
    reports = Reports()
    watched, optimizer = Watched(reports, interval=1), OPTIMIZERS[optimizer](network.parameters())
    watched.add({"G": network}, [optimizer])
    step(network, optimizer)
    other, its_optimizer = copied((network, optimizer))
    step(other, its_optimizer)
    assert len(reports["G_update_ratio"]) == 1
    step(network, optimizer)
    assert len(reports["G_update_ratio"]) == 2
