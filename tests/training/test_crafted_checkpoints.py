"""Checkpoints from untrusted sources: each is read, or refused by one error that names it."""

from __future__ import annotations

import contextlib
import copy
import json
import random
import struct

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fastgan.training.checkpoint import load_checkpoint, restore
from fastgan.training.loop import train
from fastgan.training.networks import load_network
from fastgan.training.processes.runtime import Runtime
from tests.training.toy import Toy, ToyConfig

TERA = 10**12
EVIL = (
    None, True, -1, 0, 2**70, TERA, 1e400, -1e300, float("nan"), "", "x", "../../x", "\x1b[2J\u202e", [], {},
    [1], [[]], ["a", None], {"a": 1}, {"params": 3}, "9" * 30, "[" * 5000,
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A checkpoint without checksums, which would detect most manipulations."""
    config = ToyConfig(
        runs_path=str(tmp_path_factory.mktemp("runs")),
        num_steps=2,
        accelerator="cpu",
        ema_decay=0.9,
        devices=1,
    )
    path = load_checkpoint(train(Toy, config)).path
    with safe_open(path, "pt") as file:
        metadata = {k: v for k, v in file.metadata().items() if not k.startswith("crc32")}
    return path, load_file(path), metadata


def use(path):
    """Everything that a run or a command does with a checkpoint: read, restore, resume, build its network."""
    checkpoint = load_checkpoint(path, "toy")
    config = checkpoint.options(ToyConfig)
    recipe = Toy(ToyConfig(accelerator="cpu", ema_decay=0.9), Runtime(ToyConfig(accelerator="cpu")))
    restore(recipe, checkpoint)
    recipe.train_step(next(recipe.batches(0)), 0, torch.Generator())
    load_network(lambda: torch.nn.Linear(16, config.devices), checkpoint.trained("discriminator"), path)


def refused(path, match):
    with pytest.raises(ValueError, match=f"(?s){match}") as error:
        use(path)
    assert str(path) in str(error.value)


def edited(value, key, new):
    value = copy.deepcopy(value)
    value[key] = new
    return value


def without(value, key):
    return {k: v for k, v in value.items() if k != key}


@pytest.mark.parametrize("name", ["recipe", "config", "step", "state", "param_groups"])
def test_missing_metadata_is_named(whole, tmp_path, name):
    _, tensors, metadata = whole
    save_file(tensors, tmp_path / "x.safetensors", without(metadata, name))
    refused(
        tmp_path / "x.safetensors",
        f"is not a complete checkpoint: its (metadata has no '{name}'|{name} must)",
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config", "[1, 2]", "its config must be an object, got list"),
        ("config", "{", "its config is not in JSON"),
        ("config", "[" * 100_000, "its config is not in JSON"),
        ("config", '{"batch_size": "4"}', "the configuration in .* batch_size must be of type int, got '4'"),
        ("config", '{"batch_size": [4]}', "batch_size must be of type int"),
        ("config", '{"lr": NaN}', "lr must be finite, got nan"),
        ("config", '{"lr": 1e400}', "lr must be finite, got inf"),
        ("config", '{"seed": -1}', r"seed must lie in \[0, 2\*\*63\), got -1"),
        ("config", '{"speed": 1}', "unknown options for ToyConfig: speed"),
        ("config", f'{{"devices": {TERA}}}', "does not fit: .*size mismatch for weight"),
        ("config", f'{{"devices": {2**62}}}', "describes a network that cannot be made"),
        ("recipe", "dcgan\x1b[2J", r"checkpoint of the recipe 'dcgan\\x1b\[2J', not of 'toy'"),
        ("step", "-3", "its step must be a number from 0 on, got '-3'"),
        ("step", "1e3", "its step must be"),
        ("step", "9" * 5000, "its step must be"),
        ("state", '{"steps_seen": "3"}', "its state 'steps_seen' must be a finite number, got '3'"),
        ("state", '{"steps_seen": 1e400}', "its state 'steps_seen' must be a finite number, got inf"),
        ("param_groups", "[]", "its param_groups must be an object, got list"),
        ("param_groups", "{}", "it has a state of no parameter, 'optimizers/"),
        ("param_groups", '{"generator": {"params": []}}', "the groups of its optimizer 'generator'"),
        ("param_groups", '{"generator": [{"lr": 1}]}', "the params of its optimizer 'generator'"),
    ],
)  # fmt: skip
def test_wrong_metadata_is_named(whole, tmp_path, name, text, message):
    _, tensors, metadata = whole
    save_file(tensors, tmp_path / "x.safetensors", metadata | {name: text})
    refused(tmp_path / "x.safetensors", message)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("lr", "fast", "lr of its optimizer 'generator' cannot be 'fast'"),
        ("lr", None, "lr of its optimizer 'generator' cannot be None"),
        ("betas", [0.5], r"betas of its optimizer 'generator' cannot be \(0.5,\)"),
        ("betas", 0.5, "betas of its optimizer 'generator' cannot be 0.5"),
        ("amsgrad", "no", "amsgrad of its optimizer 'generator' cannot be 'no'"),
        ("weight_clip", "a", "weight_clip of its optimizer 'generator' cannot be 'a'"),
        ("amsgrad", True, "max_exp_avg_sq of its optimizer 'generator' for parameter 0 must be .* got none"),
    ],
)
def test_wrong_options_of_optimizers_are_named(whole, tmp_path, option, value, message):
    _, tensors, metadata = whole
    groups = json.loads(metadata["param_groups"])
    groups["generator"][0][option] = value
    save_file(tensors, tmp_path / "x.safetensors", metadata | {"param_groups": json.dumps(groups)})
    refused(tmp_path / "x.safetensors", f"does not fit this configuration: {message}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path/x/y": torch.ones(1)}, "it has a tensor 'path/x/y', which belongs to nothing"),
        ({"__class__/x/y": torch.ones(1)}, "which belongs to nothing"),
        ({"networks": torch.ones(1)}, "which belongs to nothing"),
        ({"networks/generator": torch.ones(1)}, "which belongs to nothing"),
        ({"optimizers/generator/0": torch.ones(1)}, "it has a state of no parameter"),
        ({"optimizers/generator/99/exp_avg": torch.ones(1)}, "it has a state of no parameter"),
        ({"optimizers/generator/x/exp_avg": torch.ones(1)}, "it has a state of no parameter"),
        ({"optimizers/other/0/exp_avg": torch.ones(1)}, "it has a state of no parameter"),
        (
            {"emas/0/updates": torch.ones(3)},
            "'emas/0/updates' must be a number of updates, got torch.float32",
        ),
        ({"emas/0/updates": torch.tensor(-5)}, "must be a number of updates"),
        ({"networks/generator/0.weight": torch.ones(3)}, "does not fit this configuration: .*size mismatch"),
        ({"networks/generator/9.weight": torch.ones(3)}, "does not fit this configuration: .*Unexpected key"),
        ({"networks/generator/0.weight": None}, "does not fit this configuration: .*Missing key"),
        (
            {"optimizers/generator/0/exp_avg": torch.ones(3)},
            r"exp_avg of .* must be .* \(8, 4\), got .* \(3,\)",
        ),
        (
            {"optimizers/generator/0/exp_avg": None},
            r"exp_avg of its optimizer 'generator' for parameter 0 .* none",
        ),
        ({"optimizers/generator/0/step": torch.ones(8)}, r"step of its optimizer .* shape \(\), got"),
        (
            {"networks/discriminator/weight": torch.ones(1, 16, dtype=torch.int8)},
            "weight must be torch.float32",
        ),
        (
            {"networks/discriminator/weight": torch.ones(1, 16).to(torch.float8_e4m3fn)},
            "networks/discriminator/weight is torch.float8_e4m3fn, which fastgan never writes",
        ),
        (
            {"networks/discriminator/weight": torch.ones(1, 16, dtype=torch.complex64)},
            "networks/discriminator/weight is torch.complex64, which fastgan never writes",
        ),
    ],
)
def test_wrong_tensors_are_named(whole, tmp_path, change, message):
    _, tensors, metadata = whole
    changed = {key: tensor for key, tensor in {**tensors, **change}.items() if tensor is not None}
    save_file(changed, tmp_path / "x.safetensors", metadata)
    refused(tmp_path / "x.safetensors", message)


@pytest.mark.parametrize("kind", ["networks/discriminator/", "optimizers/discriminator/"])
def test_missing_parts_are_named(whole, tmp_path, kind):
    _, tensors, metadata = whole
    rest = {key: tensor for key, tensor in tensors.items() if not key.startswith((kind, "averages/"))}
    if kind.startswith("optimizers"):
        groups = without(json.loads(metadata["param_groups"]), "discriminator")
        metadata = metadata | {"param_groups": json.dumps(groups)}
    save_file(rest, tmp_path / "x.safetensors", metadata)
    refused(tmp_path / "x.safetensors", f"it has no {kind.split('s/')[0]} 'discriminator'")
    if kind.startswith("networks"):
        with pytest.raises(ValueError, match="x.safetensors has no network 'discriminator'"):
            load_checkpoint(tmp_path / "x.safetensors").trained("discriminator")


def write_raw(path, header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_sizes_that_the_file_does_not_have_are_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "x.safetensors"
    huge = 1 << 40
    for shape, offsets in (
        ([huge], [0, 4 * huge]), ([huge], [0, 8]), ([1 << 62, 1 << 62], [0, 8]), ([2], [8, 0]), ([-2], [0, 8])
    ):  # fmt: skip
        write_raw(path, {"networks/a/b": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}, bytes(8))
        refused(path, "is not a readable checkpoint")
    path.write_bytes(struct.pack("<Q", 1 << 50) + b"{}")
    refused(path, "is not a readable checkpoint")


def mutated(header, data, random_):
    """A header with one to three faults, and the data."""
    header = copy.deepcopy(header)
    names = [name for name in header if name != "__metadata__"]
    for _ in range(random_.randint(1, 3)):
        kind = random_.choice(("metadata", "inside", "inside", "inside", "tensor", "name", "bytes"))
        metadata, name = header["__metadata__"], random_.choice(names)
        if kind == "metadata":
            key = random_.choice(list(metadata))
            metadata[key] = random_.choice(
                ("", "null", "[]", "{}", "-1", "1e9", '"x"', "[" * 3000, "9" * 5000)
            )
            if random_.random() < 0.2:
                del metadata[key]
        elif kind == "inside":
            key = random_.choice(("config", "state", "param_groups"))
            with contextlib.suppress(ValueError, RecursionError, KeyError):
                metadata[key] = json.dumps(_changed_somewhere(json.loads(metadata[key]), random_))
        elif kind == "tensor" and name in header:
            field, values = random_.choice(
                (
                    ("dtype", ("F64", "BF16", "I64", "BOOL", "U8", "F8_E4M3", "F4", "x")),
                    ("shape", ([], [1], [4, 8], [0], [TERA], [1 << 62, 4])),
                    ("data_offsets", ([0, 0], [0, TERA], [8, 4], [0, 4])),
                )
            )
            header[name][field] = random_.choice(values)
        elif kind == "name" and name in header:
            parts = name.split("/")
            parts[random_.randrange(len(parts))] = random_.choice(
                ("", "x", "0", "-1", "__dict__", "/", "9" * 25)
            )
            header["/".join(parts)] = header.pop(name)
        else:
            text = bytearray(json.dumps(header).encode())
            text[random_.randrange(len(text))] = random_.randrange(256)
            return bytes(text), data
    return header, data


def _changed_somewhere(value, random_):
    if isinstance(value, dict) and value and random_.random() < 0.9:
        key = random_.choice(list(value))
        if random_.random() < 0.1:
            return without(value, key)
        return edited(value, key, _changed_somewhere(value[key], random_))
    if isinstance(value, list) and value and random_.random() < 0.9:
        place = random_.randrange(len(value))
        return edited(value, place, _changed_somewhere(value[place], random_))
    return random_.choice(EVIL)


def test_whatever_a_header_says_the_file_is_read_or_named(whole, tmp_path):
    _, tensors, metadata = whole
    path = tmp_path / "x.safetensors"
    save_file(tensors, path, metadata)
    raw = path.read_bytes()
    end = 8 + struct.unpack("<Q", raw[:8])[0]
    header, data = json.loads(raw[8:end]), raw[end:]
    header = {key: dict(sorted(header[key].items())) for key in sorted(header)}  # reproducible
    random_, outcomes = random.Random(2026), {True: 0, False: 0}
    for number in range(600):
        write_raw(path, *mutated(header, data, random_))
        try:
            use(path)
        except ValueError as error:
            assert str(path) in str(error), (number, error)
            assert str(error).isprintable() or "state_dict" in str(error), (number, error)
            assert len(str(error)) < 5000, (number, error)
            outcomes[False] += 1
        else:
            outcomes[True] += 1
    assert min(outcomes.values()) > 20, outcomes
