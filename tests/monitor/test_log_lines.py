"""Logs whose lines name their figures, exports of Weights & Biases, and event files of several runs."""

from __future__ import annotations

import json
import math
import struct

import pytest

from fastgan.monitor.columns import is_known
from fastgan.monitor.log_names import FOREIGN, parse_columns
from fastgan.monitor.logs import read_log

NAMES = ["step", *FOREIGN]


def log(folder, text, columns="", name="log.txt"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_log(path, parse_columns(columns, is_known, NAMES) if columns else None)


def noted(found):
    return "\n".join(found.notes)


# --- messages ---------------------------------------------------------------------------------------------

CYCLEGAN = """================ Training Loss (Tue Mar  3 12:30:45 2020) ================
(epoch: 1, iters: 100, time: 0.257, data: 0.318) D_A: 1.5 G_A: 0.6 cycle_A: 3.1 D_B: 0.3 G_B: 0.3
(epoch: 1, iters: 200, time: 0.258, data: 0.001) D_A: 2.5 G_A: 0.4 cycle_A: 2.7 D_B: 0.2 G_B: 0.3
(epoch: 2, iters: 100, time: 0.257, data: 0.001) D_A: 3.5 G_A: 0.3 cycle_A: 2.0 D_B: 0.2 G_B: 0.3
(epoch: 2, iters: 200, time: 0.257, data: 0.001) D_A: 4.5 G_A: 0.3 cycle_A: 2.0 D_B: 0.2 G_B: 0.3
"""
MESSAGES = {
    "CycleGAN": (CYCLEGAN, [100, 200, 300, 400]),
    "Windows": (CYCLEGAN.replace("\n", "\r\n").encode("utf-8-sig"), [100, 200, 300, 400]),
    "half a line": (CYCLEGAN + "(epoch: 3, it", [100, 200, 300, 400]),
    "newer CycleGAN": (
        "".join(
            f"[Rank 0] (epoch: 1, iters: {n}, time: 0.257, data: 0.318) , D_A: {n}.500, G_A: 0.5\n"
            for n in range(1, 5)
        ),
        [1, 2, 3, 4],
    ),
    "PyTorch's DCGAN": (
        "Starting Training Loop...\n"
        + "".join(
            f"[{n // 3}/5][{n % 3}/3]\tLoss_D: {n}.5\tLoss_G: 2.8\tD(x): 0.5\tD(G(z)): 0.6 / 0.3\n"
            for n in range(1, 5)
        ),
        [1, 2, 3, 4],
    ),
    "PyTorch-GAN": (
        "".join(f"[Epoch 0/200] [Batch {n}/938] [D loss: {n}.5] [G loss: 0.7]\n" for n in range(1, 5)),
        [1, 2, 3, 4],
    ),
    "loop with brackets": (
        "".join(f"Epoch [0/200], Step [{n}/600], d_loss: {n}.5, g_loss: 0.7\n" for n in range(1, 5)),
        [1, 2, 3, 4],
    ),
    "counter before a colon": (
        "".join(f"Iter {n}: D_loss: {n}.5\n" for n in range(1, 5)),
        [1, 2, 3, 4],
    ),
    "tensors": (
        "".join(
            f"step {n}: D_loss: tensor({n}.5000, device='cuda:0', grad_fn=<AddBackward0>) "
            f"G_loss: tensor([0.5]) lr: np.float64(1e-4)\n"
            for n in range(1, 5)
        ),
        [1, 2, 3, 4],
    ),
    "no marks": (
        "".join(f"Epoch 1/9 step {n}: d_loss {n}.5, g_loss 1e-3, time 12.5ms\n" for n in range(1, 5)),
        [1, 2, 3, 4],
    ),
    "dict": (
        "".join(f"{ {'step': n, 'd_loss': n + 0.5, 'kind': 'hinge'} }\n" for n in range(1, 5)),
        [1, 2, 3, 4],
    ),
    "level": (
        "".join(f"12:00:0{n} INFO D_loss: {n}.5 G_loss: 0.6\n" for n in range(1, 5)),
        [1, 2, 3, 4],
    ),
    "logger": (
        "".join(f"2024-01-01 12:00:0{n} - INFO - step = {n}, d_loss = {n}.5.\n" for n in range(1, 5)),
        [1, 2, 3, 4],
    ),
}


@pytest.mark.parametrize("which", MESSAGES)
def test_messages_that_name_their_figures_are_read(which, tmp_path):
    text, steps = MESSAGES[which]
    found = log(tmp_path, text)
    assert [(step, row["D_loss"]) for step, row in found.rows] == [
        (step, number + 0.5) for number, step in enumerate(steps, start=1)
    ]
    assert "cuda" not in found.rows[0][1]
    if which == "half a line":
        assert "2 of 6 lines do not name 2 figures and are left out" in noted(found)
    if which == "PyTorch's DCGAN":
        assert found.has_probabilities and found.rows[0][1]["D_fake"] == 0.6


def test_a_tensor_of_several_elements_is_no_figure(tmp_path):
    text = "".join(f"Epoch {n}: D_loss: tensor([0.5, 0.6]) G_loss: 2.0\n" for n in range(4))
    assert log(tmp_path, text).rows[0] == (0, {"G_loss": 2.0})


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "NaN", "Infinity"])
def test_messages_have_figures_that_are_no_numbers(value, tmp_path):
    text = "".join(f"epoch: {n} d_loss: {1 if n < 3 else value}\n" for n in range(5))
    assert not math.isfinite(log(tmp_path, text).rows[-1][1]["D_loss"])


def test_prose_with_a_number_is_no_log(tmp_path):
    with pytest.raises(ValueError, match=r"log\.txt"):
        log(tmp_path, "first: 1\nnothing\nhere is: 3 of them\n")


# --- JSON -------------------------------------------------------------------------------------------------


def stylegan(step):
    return {
        "Loss/D/loss": {"num": 8, "mean": step + 0.5, "std": 0.1},
        "Loss/scores/fake": {"num": 8, "mean": -1.0, "std": 0.1},
        "Progress/tick": {"num": 1, "mean": step, "std": 0},
        "Progress/kimg": {"num": 1, "mean": step + 0.25, "std": 0},
        "timestamp": 1.6e9,
    }


def mmgeneration(step):
    return {"mode": "train", "epoch": 1, "iter": step, "lr": {"generator": 1e-4}, "loss_disc": step + 0.5}


@pytest.mark.parametrize(
    "of", [stylegan, mmgeneration, lambda n: {"step": n, "d_loss": n + 0.5, "best": True}]
)
@pytest.mark.parametrize(
    "how",
    ["lines", "Windows", "torn", "list", "cut list", "one after another", "without marks", "Hugging Face"],
)
def test_json_is_read(of, how, tmp_path):
    rows = [of(step) for step in range(1, 5)]
    if of is mmgeneration:
        rows.insert(0, {"env_info": "Python 3.8", "seed": None})
    text = "\n".join(map(json.dumps, rows))
    if how == "list":
        text = json.dumps(rows, indent=1)
    elif how == "cut list":
        text = json.dumps([*rows, {"step": 5}], indent=1)[:-7]
    elif how == "one after another":
        text = "\n".join(json.dumps(row, indent=2) for row in rows)
    elif how == "without marks":
        text = "".join(map(json.dumps, rows))
    elif how == "Hugging Face":
        text = json.dumps({"best_metric": None, "other": [{}], "log_history": rows, "max_steps": 4}, indent=2)
    elif how == "torn":
        text += '\n{"step": 5, "d_l'
    elif how == "Windows":
        text = "\ufeff" + text.replace("\n", "\r\n") + "\r\n"
    found = log(tmp_path, text, name="stats.jsonl")
    assert [(step, row["D_loss"]) for step, row in found.rows] == [(n, n + 0.5) for n in range(1, 5)]
    if how == "torn":
        assert f"1 of {len(rows) + 1} lines are no JSON objects" in noted(found)
    if how == "cut list":
        assert f"what follows the first {len(rows)} objects of JSON is none and is left out" in noted(found)
    if how == "Hugging Face":
        assert "rows are the objects of log_history, not of other" in noted(found)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    "lists",
    [
        {"D_loss": [1.5, 2.5, 3.5], "G_loss": [1, None], "lr": 0.1, "kind": "hinge", "none": []},
        {"train": {"D_loss": [1.5, 2.5, 3.5]}, "G_loss": {"0": 1}},  # pandas
    ],
)
def test_json_of_a_list_for_each_figure_is_read(lists, indent, tmp_path):
    found = log(tmp_path, json.dumps(lists, indent=indent), name="log.json")
    assert found.rows == [(1, {"D_loss": 1.5, "G_loss": 1}), (2, {"D_loss": 2.5}), (3, {"D_loss": 3.5})]
    assert "rows are the places in the lists of figures, which have" in noted(found)


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x1e"])
def test_json_lines_end_where_files_have_ends_of_lines_alone(mark, tmp_path):
    rows = [{"step": n, "d_loss": n, "prompt": f"a{mark}b"} for n in range(4)]
    found = log(tmp_path, "\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    assert len(found.rows) == 4 and not any("left out" in note for note in found.notes)


@pytest.mark.parametrize("text", ["[[1, 2], [3, 4]]", '{"D_loss": [0.5, 0.4', '["a"]', '{"a": 1, "b" 2}'])
def test_json_of_another_form_is_told_which_is_read(text, tmp_path):
    with pytest.raises(
        ValueError, match=r"log\.txt is JSON that is damaged, or not of a form that is read: obj"
    ):
        log(tmp_path, text)


def test_nan_and_numbers_that_are_too_large_are_read_from_json(tmp_path):
    lines = ['{"step": 1, "d_loss": NaN}', '{"step": 2, "d_loss": -Infinity}', f'{{"d_loss": 1{"0" * 400}}}']
    lines[2] = lines[2].replace("{", '{"step": 3, ', 1)
    assert not any(math.isfinite(row["D_loss"]) for _, row in log(tmp_path, "\n".join(lines)).rows)


@pytest.mark.parametrize("text", ["[]", "{}\n{}\n{}\n", '{"a": "b"}\n' * 4, "[1, 2]", "{", '{"a": {"b"'])
def test_json_without_figures_is_refused_by_name(text, tmp_path):
    with pytest.raises(ValueError, match=r"log\.json"):
        log(tmp_path, text, name="log.json")


# --- Weights & Biases ---------------------------------------------------------------------------------------


def export(*runs, figures=("d_loss", "g_loss")):
    columns = [f"{run} - {name}{mark}" for run in runs for name in figures for mark in ("", "__MIN", "__MAX")]
    lines = [",".join(f'"{name}"' for name in ["Step", *columns])]
    for step in range(1, 5):
        lines.append(",".join(f'"{value}"' for value in [step, *([step + 0.5] * len(columns))]))
    return "\n".join(lines)


def test_a_figure_of_an_export_loses_the_runs_name_and_its_bounds(tmp_path):
    found = log(tmp_path, export("rosy-sun-3 - x", figures=("d_loss", "g_loss", "_step")))
    assert found.rows[0] == (1, {"D_loss": 1.5, "G_loss": 1.5})
    assert "figures are those of the run rosy-sun-3 - x" in noted(found)
    assert "6 columns of lowest and highest values (__MIN, __MAX) are left out" in noted(found)


def test_of_several_runs_in_an_export_one_must_be_named(tmp_path):
    text = export("a", "b")
    with pytest.raises(
        ValueError, match=r"log\.txt holds 2 runs, .*--columns, as D_loss=a - d_loss; it has a, b"
    ):
        log(tmp_path, text)
    found = log(tmp_path, text, "D_loss=b - d_loss")
    assert found.rows[0][1] == {"D_loss": 1.5, "G_loss": 1.5}
    assert "figures are those of the run b, not a" in noted(found)
    with pytest.raises(ValueError, match="one at a time"):
        log(tmp_path, text, "D_loss=a - d_loss,G_loss=b - g_loss")


def test_a_column_with_a_dash_among_others_is_no_export(tmp_path):
    found = log(tmp_path, "step,d_loss,a - b\n" + "".join(f"{n},1,2\n" for n in range(4)))
    assert found.rows[0][1] == {"D_loss": 1, "a - b": 2}


# --- names and steps ----------------------------------------------------------------------------------------


def test_figures_of_steps_come_before_their_means_over_epochs(tmp_path):
    header = "d_loss_epoch,d_loss_step,epoch,g_loss_epoch,g_loss_step,step"  # as Lightning sorts them
    rows = [f",{n}.5,0,,1,{n}" for n in range(1, 5)] + ["9,,0,9,,4"]
    found = log(tmp_path, "\n".join([header, *rows]))
    assert [row["D_loss"] for _, row in found.rows] == [1.5, 2.5, 3.5, 4.5]
    assert found.names["G_loss"] == "g_loss_step"


@pytest.mark.parametrize("columns", ["D_loss=step", "D_loss=epoch", "D_real=Step"])
def test_a_counter_is_no_figure(columns, tmp_path):
    name = columns.split("=")[1]
    text = f"{name},d_loss\n" + "".join(f"{n},1\n" for n in range(4))
    with pytest.raises(
        ValueError, match=f"--columns {columns}: {name} counts the steps of .*log.txt and is no"
    ):
        log(tmp_path, text, columns)


def test_a_column_of_steps_that_stands_still_is_refused(tmp_path):
    text = "n,d_loss\n" + "0,1\n" * 5
    with pytest.raises(ValueError, match="--columns step=n: .* has fewer than 3 different steps"):
        log(tmp_path, text, "step=n")


# --- TensorBoard --------------------------------------------------------------------------------------------


def events(folder, steps, value=1.0, tags=("d_loss",), began=1):
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    with tensorboard.SummaryWriter(str(folder)) as writer:
        for step in steps:
            for tag in tags:
                writer.add_scalar(tag, value, step)
    path = max(folder.glob("*tfevents*"), key=lambda path: path.stat().st_mtime_ns)
    return path.rename(folder / f"events.out.tfevents.{began}.host.{began}.0")


def test_whether_an_event_file_is_cut_off_is_told_without_reading_it_whole(tmp_path, monkeypatch):
    path = events(tmp_path, range(9))
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda self: pytest.fail(f"{self} is read whole"))
    assert len(read_log(path).rows) == 9


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_an_event_file_that_is_cut_is_read_up_to_there_and_told(cut, tmp_path):
    path = events(tmp_path, range(9))
    whole = read_log(path)
    assert not [note for note in whole.notes if "cut off" in note]
    path.write_bytes(path.read_bytes()[:-cut])
    found = read_log(path)
    assert [step for step, _ in found.rows] == list(range(8))
    assert f"{path.name} is cut off or damaged after 9 records, and is read up to there" in found.notes


def test_an_event_file_that_is_damaged_in_the_middle_is_told(tmp_path):
    path = events(tmp_path, range(9))
    content, place = bytearray(path.read_bytes()), 0
    for _ in range(5):
        place += 16 + struct.unpack_from("<Q", content, place)[0]
    content[place + 20] ^= 255
    path.write_bytes(content)
    found = read_log(path)
    assert [step for step, _ in found.rows] == list(range(4))
    assert f"{path.name} is cut off or damaged after 5 records" in noted(found)


def test_of_several_runs_in_one_folder_the_last_counts(tmp_path):
    first = events(tmp_path, range(0, 50, 10), 1.0, began=9)
    events(tmp_path, range(0, 40, 10), 2.0, began=10)
    events(tmp_path, range(40, 60, 10), 3.0, began=11)  # the second was resumed
    found = read_log(tmp_path)
    assert [(step, row["D_loss"]) for step, row in found.rows] == [
        (0, 2), (10, 2), (20, 2), (30, 2), (40, 3), (50, 3),
    ]  # fmt: skip
    assert (
        "of 3 event files in one folder, those of the last run count, from "
        "events.out.tfevents.10.host.10.0 on; "
        f"to judge another run, give its file: {first.name}" in noted(found)
    )
    assert read_log(first).rows[0][1] == {"D_loss": 1.0}


def test_a_run_that_was_resumed_and_writers_of_other_figures_are_one_run(tmp_path):
    events(tmp_path, range(0, 50, 10), 1.0, began=1)
    events(tmp_path, range(0, 50, 10), 1.0, ("g_loss",), began=2)
    events(tmp_path, range(30, 80, 10), 2.0, ("d_loss", "g_loss"), began=3)
    found = read_log(tmp_path)
    assert [row["D_loss"] for _, row in found.rows] == [1, 1, 1, 2, 2, 2, 2, 2]
    assert {"G_loss"} < found.rows[0][1].keys()
    assert "3 event files in one folder are read as those of one run that was resumed" in found.notes


def test_runs_in_folders_of_their_own_are_listed_and_one_is_asked_for(tmp_path):
    for name in ("exp1/train", "exp2/train", "exp2/validation", "deep/er/exp3"):
        events(tmp_path / name, range(5))
    with pytest.raises(
        ValueError, match=r"holds event files of 3 runs, .*give the folder of one of deep/er/exp3, exp1, exp2"
    ):
        read_log(tmp_path)
    found = read_log(tmp_path / "exp2")
    assert found.rows[0][1] == {"D_loss": 1.0, "validation/d_loss": 1.0}
    assert "event files are those of the folder er/exp3" in noted(read_log(tmp_path / "deep"))


def test_a_folders_own_event_files_count_and_those_of_other_runs_below_are_told(tmp_path):
    events(tmp_path, range(5))
    events(tmp_path / "1700000000.123", range(5), 9.0, ("hparam/d_loss",))
    found = read_log(tmp_path)
    assert found.rows[0][1] == {"D_loss": 1.0}
    assert "the folders below are left out, as those of other runs: 1700000000.123" in noted(found)


def test_figures_of_add_scalars_are_of_one_run(tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    with tensorboard.SummaryWriter(str(tmp_path)) as writer:
        for step in range(4):
            writer.add_scalars("loss/all", {"D": 1.0, "G": 2.0}, step)
    assert read_log(tmp_path).rows[0][1] == {"loss_all_D/loss/all": 1.0, "loss_all_G/loss/all": 2.0}


def test_points_that_are_all_at_step_0_are_counted(tmp_path):
    events(tmp_path, [0] * 5, tags=("d_loss", "g_loss"))
    found = read_log(tmp_path)
    assert [step for step, _ in found.rows] == [1, 2, 3, 4, 5] and len(found.rows[4][1]) == 2
    assert "all points are at step 0: steps are numbers of each figure's values" in found.notes
