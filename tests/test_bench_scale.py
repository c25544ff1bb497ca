"""`fastgan bench scale`: the model of steps on many GPUs, and what it counts in a step."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("pytest_benchmark")

from fastgan.bench.scale import BACKWARD, NODE, NVLINK, REACHED, Work, all_reduce_seconds, main, predict

WORK = Work(batch_size=4, flops_per_image=1e11, buckets=[20 * 2**20] * 3, sums=8)


def test_a_large_sum_within_a_node_takes_what_its_links_take():
    size = 2**33
    expected = 2 * (NODE - 1) / NODE * size / (REACHED * NVLINK)
    assert all_reduce_seconds(size, NODE) == pytest.approx(expected, rel=0.01)
    assert all_reduce_seconds(size, 1) == 0


@pytest.mark.parametrize("size", [1024, 2**20, 2**25])
def test_more_gpus_never_take_less(size):
    times = [all_reduce_seconds(size, gpus) for gpus in (1, 2, 8, 16, 64, 256, 1024)]
    assert times == sorted(times)


def test_at_most_the_backward_pass_hides_an_exchange():
    free = predict(WORK, 64, "bf16-mixed", hidden=1.0)
    slow = predict(WORK, 64, "bf16-mixed", hidden=0.0)
    assert slow["step_s"] == slow["nothing_hidden_s"] == free["nothing_hidden_s"]
    beside = min(free["exchange_s"], BACKWARD * free["compute_s"])
    assert free["step_s"] == pytest.approx(free["nothing_hidden_s"] - beside)
    one = predict(WORK, 1, "bf16-mixed", hidden=1.0)
    assert one["step_s"] == one["compute_s"]


def test_what_a_step_computes_and_exchanges_is_counted(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    row = {"recipe": "zi2zi", "variant": "buckets", "hidden": 0.5}
    (tmp_path / "exchange-here.json").write_text(json.dumps([row, row | {"hidden": 0.25}]))
    folder = tmp_path / "out"
    arguments = ["dcgan", "--preset", "demo", "--exchange", str(tmp_path), "--output", str(folder)]
    assert main(arguments) == 0
    assert "sums of batch normalization" in capsys.readouterr().out
    full, half = json.loads((folder / "scale.json").read_text())
    from fastgan.recipes.dcgan.recipe import DCGAN
    from fastgan.training.processes.runtime import Runtime

    config = DCGAN.presets["demo"]
    networks = DCGAN(config, Runtime(config)).networks
    trained = [*networks["generator"].parameters(), *networks["discriminator"].parameters()]
    expected = sum(4 * parameter.numel() for parameter in trained)
    assert full["hidden"] == 0.25 and not full["hidden_is_measured"]
    assert expected <= full["bytes"] == sum(full["buckets"]) < 1.02 * expected
    assert full["sums"] > 0 and full["sums"] % 2 == 0
    assert half["flops_per_image"] == full["flops_per_image"] > 1e6
    assert full["steps"][0]["compute_s"] == pytest.approx(2 * half["steps"][0]["compute_s"])


def test_without_a_measured_exchange_nothing_is_predicted(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--exchange", str(tmp_path)])
    assert "run `fastgan bench exchange`" in capsys.readouterr().err
