"""Logs of any trainer: what is read of messy files, what is recognized, and what is said about it."""

from __future__ import annotations

import codecs
import csv
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastgan.monitor import Diagnosis
from fastgan.monitor.columns import is_known
from fastgan.monitor.log_names import FOREIGN, parse_columns
from fastgan.monitor.logs import MOST_ROWS, read_log

pytest.importorskip("tensorboard")

NAMES = ["step", *FOREIGN]


def file(folder, text, name="log.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def log(folder, text, columns=None):
    return read_log(file(folder, text), columns)


def rows(count=4, header="step,D_loss", row="{0},{0}.5", end="\n"):
    return end.join([header, *(row.format(step) for step in range(1, count + 1)), ""])


EXPECTED = [(step, {"D_loss": step + 0.5}) for step in range(1, 5)]


@pytest.mark.parametrize(
    "text",
    [
        rows(),
        rows(end="\r\n"),
        rows().rstrip("\n"),
        "\ufeff" + rows(),
        rows().encode("utf-16"),
        rows(header="step;D_loss", row="{0};{0},5"),
        rows(header="step\tD_loss", row="{0}\t{0}.5"),
        rows(header='"step","D_loss"', row='"{0}","{0}.5"'),
        rows(header="step, D_loss ", row=" {0} , {0}.5 "),
        rows(header="# step,D_loss"),
        rows(header="step,D_loss,", row="{0},{0}.5,"),
        rows(header="step,D_loss", row="{0},{0}.5\n\n"),
        rows(header="global_step,Loss_D", row="{0},{0}.5"),
        rows(header="Iteration,train/d_loss", row="{0}.0,{0}.5"),
        "# created by, me, today\n#\n" + rows(),
        "# created by, me, today\r\n\r\n# step,D_loss\r\n" + rows().split("\n", 1)[1],
        rows(header="step,D_loss,in;other;units", row="{0},{0}.5,"),
        rows(header="step;D_loss;a,b,c,d", row="{0};{0},5;"),
        rows().encode("utf-32"),
        codecs.BOM_UTF32_BE + rows().encode("utf-32-be"),
        codecs.BOM_UTF16_BE + rows().encode("utf-16-be"),
    ],
)
def test_tables_of_many_writers_are_read_alike(text, tmp_path):
    assert log(tmp_path, text).rows == EXPECTED


@pytest.mark.parametrize(
    "text, noted",
    [
        (rows(header="step,D_loss,kind", row="{0},{0}.5,cat"), "left out, since they hold no numbers: kind"),
        (rows() + "step,D_loss\n", "the header stands in 1 further rows"),
        (rows() + "5,1,2,3\n6\n", "2 of 6 rows do not have 2 cells"),
        (rows() + "5,none\n", "D_loss: 1 of 5 cells are no numbers and count as empty"),
        (rows() + ",7\n", "1 of 5 rows have no step"),
        ("step,D_loss\n2,2.5\n1,1.5\n4,4.5\n3,3.5\n", "rows were not in the order of steps"),
        ("step,D_loss\n1,0\n2,2.5\n1,1.5\n3,3.5\n4,4.5\n", "1 steps are there more than once: the last row"),
        (rows(header="step,D_loss,D_loss", row="{0},{0}.5,9"), "2 columns are named D_loss"),
        (rows(header="epoch,D_loss", row="1,{0}.5"), "steps are numbers of rows: epoch does not tell rows"),
        (rows(header="epoch,D_loss", row="0.{0},{0}.5"), "steps are numbers of rows: epoch has fractions"),
        (rows(header="D_loss", row="{0}.5"), "steps are numbers of rows"),
        (rows(header="step,errD", row="{0},{0}.5"), "taken for what rules know: D_loss is errD"),
        ("# created by me\n" + rows(), "left out, as comments above the header: # created by me"),
        (
            rows(header="step\tD_loss\tn", row="{0}\t{0}.5\t{0},234"),
            "commas separate thousands: 1,234 is 1234",
        ),
        (rows(header="step;D_loss", row="{0};{0},5"), "commas are decimal: 1,5 is 1.5"),
        (
            rows(header="step,D_loss,a,a,a (2)", row="{0},{0}.5,2,3,4"),
            "2 columns are named a: the later ones are called a (3)",
        ),
        (
            rows(header="step,D_loss,naïve", row="{0},{0}.5,1").encode("latin-1"),
            "1 characters are no UTF-8 and are read as \ufffd",
        ),
        (
            rows(header="step,D_loss", row="170000000000000000{0},{0}.5"),
            "steps are numbers of rows: step has numbers too large to be read exactly (beyond 2^53)",
        ),
    ],
)
def test_what_is_decided_about_a_file_is_told(text, noted, tmp_path):
    found = log(tmp_path, text)
    assert noted in "\n".join(found.notes)
    known = [(step, {"D_loss": row["D_loss"]}) for step, row in found.rows if "D_loss" in row]
    assert known == EXPECTED


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "log.csv is empty"),
        (b"\xef\xbb\xbf\n\n", "log.csv is empty"),
        ("step,D_loss\n", "has names of columns, but no rows"),
        (rows(1), "has 1 row: verdicts follow figures over steps, and need 3 rows at least"),
        (rows(2), "has 2 rows: "),
        ("1,2\n3,4\n5,6\n7,8\n", "has no names of columns: its first row is 1, 2"),
        ("step,kind\n1,a\n2,b\n3,c\n", "has no figures beside its steps; it has step"),
        ("a,b\nx,y\nx,y\nx,y\n", "has no column of numbers; it has a, b"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "is neither text nor one of TensorBoard's event files"),
        ("x" * 200_000 + "\n" + "y" * 200_000, "cannot be read as a table"),
    ],
)
def test_files_that_are_no_logs_are_refused_by_name(text, said, tmp_path):
    with pytest.raises(ValueError, match=r"log\.csv") as error:
        log(tmp_path, text)
    assert said in str(error.value)
    assert len(str(error.value)) < 1000


def test_a_missing_file_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        read_log(tmp_path / "none")
    with pytest.raises(ValueError, match="folder with neither metrics.csv nor TensorBoard's event files"):
        read_log(tmp_path)


DCGAN = "Loss_D,Loss_G,D(x),D(G(z))"
STYLEGAN = ("Loss/D/loss", "Loss/G/loss", "Loss/scores/real", "Loss/scores/fake", "Loss/r1_penalty")


@pytest.mark.parametrize(
    "header, ours",
    [
        (DCGAN, "D_loss,G_loss,D_real,D_fake"),
        ("errD,errG,D_x,D_G_z1,D_G_z2", "D_loss,G_loss,D_real,D_fake,D_G_z2"),
        (",".join(STYLEGAN), "D_loss,G_loss,D_real,D_fake,r1_penalty"),
        ("loss_D,loss_G", "D_loss,G_loss"),
        ("lossD,lossG", "D_loss,G_loss"),
        ("[D loss],[G loss],acc", "D_loss,G_loss,acc"),
        ("train/d_loss,train/g_loss,val/d_loss", "D_loss,G_loss,val/d_loss"),
        ("d_loss_step,g_loss_epoch", "D_loss,G_loss"),
        ("discriminator_loss,generator_loss", "D_loss,G_loss"),
        ("critic_loss,gen_loss,gradient_penalty", "D_loss,G_loss,D_penalty"),
        ("loss_G,loss_G_GAN,loss_G_L1,loss_D", "loss_G,G_loss,loss_G_L1,D_loss"),
        ("real_score,fake_score", "D_real,D_fake"),
        ("Loss_D,Loss_G,Score_D,Score_G,PSNR", "D_loss,G_loss,D_real,D_fake,psnr"),
        ("loss_dis,loss_gen,elapsed_time", "D_loss,G_loss,elapsed_time"),
        ("loss_D,loss_G,loss_pixel,loss_adversarial", "D_loss,loss_G,loss_pixel,G_loss"),
        ("G_Total,L1,G_Adv,D_Total", "G_Total,L1,G_loss,D_loss"),
        ("acc_real,acc_fake", "D_accuracy_real,D_accuracy_fake"),
        ("G_GAN,G_L1,D_real,D_fake", "G_loss,G_L1,D_real_loss,D_fake_loss,D_loss"),
        ("d_loss_real,d_loss_fake,g_loss", "D_real_loss,D_fake_loss,G_loss,D_loss"),
        ("D_loss,d_loss", "D_loss,d_loss"),
        ("GAN,GAN_Feat,VGG,D_Fake,D_real", "G_loss,GAN_Feat,VGG,D_fake_loss,D_real_loss,D_loss"),
        ("G_GAN,G_GAN_Feat,G_VGG,D_real,D_fake", "G_loss,G_GAN_Feat,G_VGG,D_fake_loss,D_real_loss,D_loss"),
        (
            "l_g_gan,l_g_pix,l_g_percep,l_d_real,l_d_fake,out_d_real,out_d_fake",
            "G_loss,l_g_pix,l_g_percep,D_real_loss,D_fake_loss,D_loss,D_real,D_fake",
        ),
        ("losses/l_g_gan,losses/out_d_real,losses/out_d_fake", "G_loss,D_real,D_fake"),
        (
            "D_A,G_A,cycle_A,idt_A,D_B,G_B,cycle_B,idt_B",
            "D_loss,G_loss,cycle_A,idt_A,D_B,G_B,cycle_B,idt_B",
        ),
        ("G_A,D_A,G_B,D_B", "G_loss,D_loss,G_B,D_B"),
        (
            "D/latent_real,D/latent_fake,D/latent_reg,D/reference_real,G/latent_adv,G/latent_sty,G/latent_ds,"
            "G/latent_cyc,G/reference_adv,G/reference_sty,G/lambda_ds",
            "D_real_loss,D_fake_loss,D_loss,r1_penalty,D/reference_real,G_loss,sty_lat_loss,ds_lat_loss,"
            "cyc_lat_loss,G/reference_adv,sty_ref_loss,lambda_ds",
        ),
        (
            "Loss/D/loss,Loss/G/loss,Loss/scores/real,Loss/signs/real,Loss/signs/fake,Loss/r1_penalty",
            "D_loss,G_loss,D_real,D_accuracy_real,D_accuracy_fake,r1_penalty",
        ),
        ("gan_share,d_loss", "share_G_loss,D_loss"),
        ("grad,lr_d,loss", "grad,lr_d,loss"),
    ],
)
def test_names_of_common_trainers_are_recognized(header, ours, tmp_path):
    names = header.split(",")
    found = log(tmp_path, rows(header=header, row=",".join("{0}" for _ in names)))
    assert {name for _, row in found.rows for name in row} == set(ours.split(","))


def test_the_sum_of_both_parts_is_d_s_loss(tmp_path):
    found = log(tmp_path, rows(header="errD_real,errD_fake", row="{0},0.25"))
    assert found.has_parts and found.rows[1][1]["D_loss"] == 2.25
    assert "D_loss is the sum of errD_real and errD_fake" in "\n".join(found.notes)


SPADE = "GAN,GAN_Feat,VGG,D_Fake,D_real"


def test_d_s_losses_beside_gan_are_no_scores_unless_columns_say_so(tmp_path):
    found = log(tmp_path, rows(header=SPADE, row="2,1,1,0.01,0.01"))
    assert "D_real and D_Fake count as losses of D, as in pix2pix and SPADE, since GAN" in "\n".join(
        found.notes
    )
    found = log(tmp_path, rows(header=SPADE, row="2,1,1,0.01,0.01"), {"D_real": "D_real", "D_fake": "D_Fake"})
    assert found.names["D_real"] == "D_real" and "D_loss" not in found.rows[0][1]
    found = log(tmp_path, rows(header="G_GAN,D_loss,D_real", row="2,1,1"))
    assert found.names["D_real"] == "D_real", "D's loss has another name"


@pytest.mark.parametrize(
    "cells, values",
    [
        (("1,234", "12,345", "1,234,567", "1,234.5"), [1234, 12345, 1234567, 1234.5]),
        (("1,234", "12,345", "0,567", "1,2e3"), [1.234, 12.345, 0.567, 1200]),
        (("1,234", "0,5", "7", "1,234.5"), [1.234, 0.5, 7]),
    ],
)
@pytest.mark.parametrize("mark", ["\t", ";"])
def test_commas_are_decimal_only_if_one_of_them_cannot_separate_thousands(cells, values, mark, tmp_path):
    lines = [f'{step}{mark}"{cell}"{mark}1' for step, cell in enumerate(cells)]
    found = log(tmp_path, "\n".join([f"step{mark}D_loss{mark}G_loss", *lines]))
    assert [row["D_loss"] for _, row in found.rows if "D_loss" in row] == values


def test_cells_with_commas_in_quotes_are_no_numbers_between_commas(tmp_path):
    found = log(tmp_path, rows(header="step,D_loss,shape", row='{0},{0}.5,"1,3"'))
    assert found.rows == EXPECTED and "left out, since they hold no numbers: shape" in found.notes


def test_columns_of_one_name_get_one_that_is_free(tmp_path):
    found = log(tmp_path, rows(header="step,a,a,a (2),a", row="1{0},2,3,4,5"))
    assert found.rows[0][1] == {"a": 2, "a (3)": 3, "a (2)": 4, "a (4)": 5}


def test_rows_of_another_width_than_the_header_are_the_reason_for_too_few(tmp_path):
    with pytest.raises(
        ValueError, match=r"has 0 rows: .* \(4 of 4 rows do not have 3 cells and are left out"
    ):
        log(tmp_path, rows(header="step,D_loss,G_loss", row="{0},1"))


def test_steps_that_are_too_large_are_not_taken_even_if_asked_for(tmp_path):
    text = rows(header="when,D_loss", row="170000000000000000{0},1")
    with pytest.raises(ValueError, match=r"step=when: .*csv has numbers too large to be read exactly"):
        log(tmp_path, text, {"step": "when"})
    assert (
        log(tmp_path, rows(header="step,D_loss", row="900719925474098{0},1")).rows[3][0] == 9007199254740984
    )


@pytest.mark.parametrize(
    "header, noted",
    [
        (
            "D_A,G_A,cycle_A,D_B,G_B",
            "two pairs of networks: rules follow D_A, G_A; for the other: --columns D_loss=D_B,G_loss=G_B",
        ),
        (
            "D/latent_real,D/latent_fake,D/reference_real,D/reference_fake",
            "styles from noise and from references: rules follow D/latent_real, D/latent_fake; for the "
            "other: --columns D_real_loss=D/reference_real,D_fake_loss=D/reference_fake",
        ),
    ],
)
def test_of_two_games_in_a_file_one_is_followed(header, noted, tmp_path):
    names = header.split(",")
    found = log(tmp_path, rows(header=header, row=",".join("{0}" for _ in names)))
    assert f"the file has {noted}" in found.notes
    text = noted.split("--columns ")[1]
    other = log(
        tmp_path,
        rows(header=header, row="1,1,1,1,1"[: 2 * len(names) - 1]),
        parse_columns(text, is_known, NAMES),
    )
    assert not any("the file has two" in note for note in other.notes)


def test_accuracies_are_parts_of_one(tmp_path):
    found = log(tmp_path, rows(header="acc_real,acc_fake", row="75,0.5"))
    assert found.rows[0][1] == {"D_accuracy_real": 0.75, "D_accuracy_fake": 0.005}
    assert "acc_real, acc_fake beyond 1 and up to 100: taken for percent" in found.notes
    found = log(tmp_path, rows(header="acc_real,acc_fake", row="0.75,1"))
    assert found.rows[0][1] == {"D_accuracy_real": 0.75, "D_accuracy_fake": 1}
    found = log(tmp_path, rows(header="Loss/signs/real,Loss/signs/fake", row="0.5,-0.5"))
    assert found.rows[0][1] == {"D_accuracy_real": 0.75, "D_accuracy_fake": 0.75}
    assert "D_accuracy_fake is (1 - x) / 2 of Loss/signs/fake, a mean of signs" in found.notes


def test_numbers_that_float32_does_not_have_are_infinite(tmp_path):
    found = log(tmp_path, "step,D_loss,G_loss\n1,1,1\n2,1e308,1e38\n3,-1e39,nan\n")
    values = [row["D_loss"] for _, row in found.rows]
    assert values == [1, math.inf, -math.inf] and found.rows[1][1]["G_loss"] == 1e38
    assert "D_loss: 2 values beyond float32's range (3.4e38) count as infinite" in found.notes


@pytest.mark.parametrize(
    "name, counts, steps",
    [
        ("batch", (0, 1, 2), [0, 1, 2, 3, 4, 5]),
        ("iters", (100, 200, 300), [100, 200, 300, 400, 500, 600]),
        ("i", (0, 100, 200), [0, 100, 200, 300, 400, 500]),
    ],
)
def test_a_counter_that_begins_again_with_each_epoch_is_counted_on(name, counts, steps, tmp_path):
    lines = [f"{epoch},{count},1" for epoch in (1, 2) for count in counts]
    found = log(tmp_path, "\n".join([f"epoch,{name},D_loss", *lines]))
    assert [step for step, _ in found.rows] == steps
    per_epoch = steps[3] - steps[0]
    assert (
        f"{name} begins again with each epoch: steps are {name} plus {per_epoch} for each" in found.notes[0]
    )
    chosen = log(tmp_path, "\n".join([f"epoch,{name},D_loss", *lines]), {"step": name})
    assert [step for step, _ in chosen.rows] == steps
    without = log(tmp_path, "\n".join([f"{name},D_loss", *(line.split(",", 1)[1] for line in lines)]))
    assert [step for step, _ in without.rows] == [1, 2, 3, 4, 5, 6]
    assert f"steps are numbers of rows: {name} begins again and again" in without.notes


def test_a_counter_of_the_whole_run_that_was_resumed_is_sorted(tmp_path):
    lines = [f"{n // 3},{n},{n}" for n in (*range(9), *range(4, 12))]
    found = log(tmp_path, "\n".join(["epoch,iter,D_loss", *lines]))
    assert [step for step, _ in found.rows] == list(range(12))


@pytest.mark.parametrize("value, expected", [("0.9", True), ("1.5", False)])
def test_d_of_x_is_a_probability_where_it_lies_between_0_and_1(value, expected, tmp_path):
    assert log(tmp_path, rows(header=DCGAN, row=f"1,1,{value},0.1")).has_probabilities is expected


def test_columns_that_are_asked_for_come_before_recognized_ones(tmp_path):
    text = rows(header='n,loss_D,D(x),"other(a,b)"', row="{0}0,1,0.5,{0}")
    found = log(tmp_path, text, {"D_loss": "other(a,b)", "step": "n"})
    assert found.names == {"D_loss": "other(a,b)", "D_real": "D(x)"}
    assert found.rows[1] == (20, {"loss_D": 1, "D_real": 0.5, "D_loss": 2})


@pytest.mark.parametrize(
    "columns, said",
    [
        ({"D_loss": "loss_d"}, r"D_loss=loss_d: .* has no column 'loss_d'; did you mean 'Loss_D'\?"),
        ({"step": "Loss_D"}, "step=Loss_D: .* has fractions in that column"),
    ],
)
def test_columns_that_cannot_be_are_refused(columns, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        log(tmp_path, rows(header="step,Loss_D"), columns)


def test_columns_are_parsed_with_parentheses_and_commas():
    text = "d_real=D(x),d_fake=D(G(z)), G_loss = f(a,b),share_l1=l1,step=it"
    assert parse_columns(text, is_known, NAMES) == {
        "D_real": "D(x)", "D_fake": "D(G(z))", "G_loss": "f(a,b)", "share_l1": "l1", "step": "it",
    }  # fmt: skip


@pytest.mark.parametrize(
    "text, said",
    [
        ("d_rael=x", "rules know no 'd_rael'; did you mean D_real?"),
        ("x", r"--columns must be NAME=COLUMN,NAME=COLUMN,\.\.\., got 'x'"),
        ("D_real=", "--columns must be NAME=COLUMN"),
        ("D_real=a,D_real=b", "--columns has 'D_real' twice"),
        ("D_real=a,D_fake=a", "--columns has 'a' twice"),
    ],
)
def test_mistakes_in_columns_are_named(text, said):
    with pytest.raises(ValueError, match=said):
        parse_columns(text, is_known, NAMES)


def test_nan_is_kept_and_empty_cells_are_not(tmp_path):
    found = log(tmp_path, "step,D_loss,G_loss\n1,1,\n2,nan,2\n3,NaN,\n4,inf,2\n")
    assert [("G_loss" in row, math.isfinite(row["D_loss"])) for _, row in found.rows] == [
        (False, True), (True, False), (False, False), (True, False),
    ]  # fmt: skip


def test_nan_between_numbers_counts_as_not_measured(tmp_path):
    found = log(
        tmp_path,
        "step,D_loss,val_loss\n" + "".join(f"{n},1,{n if n % 3 == 0 else 'nan'}\n" for n in range(9)),
    )
    assert [step for step, row in found.rows if "val_loss" in row] == [0, 3, 6, 7, 8][:3]
    assert "val_loss: nan in 6 of 9 rows, between numbers, counts as not measured" in found.notes


def test_long_logs_are_averaged_up_to_the_row_that_breaks(tmp_path):
    lines = [f"{step},{'nan' if step >= 1234 else 1}" for step in range(5000)]
    found = log(tmp_path, "\n".join(["step,D_loss", *lines]))
    assert len(found.rows) <= MOST_ROWS + 2
    broken = [step for step, row in found.rows if math.isnan(row["D_loss"])]
    assert broken[0] == 1234 and found.rows[-1][0] == 4999
    assert "its 5000 rows are averaged by 25" in found.notes


def test_names_in_quotes_have_marks_and_line_ends(tmp_path):
    with (tmp_path / "log.csv").open("w", newline="") as target:
        csv.writer(target).writerows([["step", 'a"b', "c\nd"], *([n, n, n] for n in range(4))])
    assert [row for _, row in read_log(tmp_path / "log.csv").rows][1] == {'a"b': 1, "c\nd": 1}


CELLS = st.one_of(
    st.integers(-3, 10**20).map(str), st.floats().map(str), st.text(max_size=8),
    st.sampled_from(["", "nan", "-inf", "1,5", "1e400", "step", "D_loss", '"', "#", "\0", "٣", "1_0", "0x1"]),
)  # fmt: skip
TABLES = st.builds(
    lambda rows, mark, end: end.join(mark.join(cells) for cells in rows),
    st.lists(st.lists(CELLS, max_size=4), max_size=8),
    st.sampled_from([",", ";", "\t", " "]),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
LOGS = st.builds(
    lambda header, end, tail: header + end + tail,
    st.sampled_from(["step,D_loss", "epoch;errD;errG", "D_real\tD_fake"]), st.sampled_from(["\n", "\r\n"]),
    st.lists(st.tuples(CELLS, CELLS, CELLS).map(",".join), max_size=8).map("\n".join),
)  # fmt: skip

FIGURES = st.recursive(
    st.one_of(st.floats(), st.integers(), st.booleans(), st.none(), st.text(max_size=4)),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["mean", "d_loss", "step"]), inner),
    max_leaves=6,
)  # fmt: skip
LINES = st.lists(
    st.dictionaries(st.sampled_from(["step", "d_loss", "a - b", "a - b__MIN"]), FIGURES).map(json.dumps)
    | st.lists(st.tuples(st.sampled_from(["epoch", "D loss", "("]), CELLS).map(": ".join)).map(" ".join),
    max_size=6,
).map("\n".join)  # fmt: skip


@given(
    text=st.one_of(st.text(max_size=200), TABLES, LOGS, LINES).map(
        lambda text: text.encode("utf-8", "replace")
    )
    | st.binary(max_size=200)
)
def test_any_text_is_read_or_refused_with_one_error(text, tmp_path_factory):
    path = file(tmp_path_factory.getbasetemp(), text, "any.csv")
    try:
        found = read_log(path)
    except ValueError as error:
        assert "any.csv" in str(error) and len(str(error)) < 1000
        return
    steps = [step for step, _ in found.rows]
    assert steps == sorted(set(steps)) and all(type(step) is int and step >= 0 for step in steps)
    values = [value for _, row in found.rows for value in row.values()]
    assert values and all(type(value) is float for value in values)
    diagnosis = Diagnosis()
    for step, row in found.rows:
        diagnosis.add(step, row)


@pytest.mark.parametrize("text", ['"', ",,", '" "\n'])
def test_tables_of_empty_cells_are_refused_by_name(text, tmp_path):
    with pytest.raises(ValueError, match=r"log\.csv"):
        log(tmp_path, text)


# --- TensorBoard --------------------------------------------------------------------------------------------


def events(folder, scalars, subfolder=""):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / subfolder)) as writer:
        for step in range(1, 6):
            for name in scalars:
                writer.add_scalar(name, step + 0.5, 10 * step)
            writer.add_text("note", "text", step)
    return next((folder / subfolder).glob("*tfevents*"))


def test_event_files_and_folders_of_them_are_read(tmp_path):
    path = events(tmp_path / "run", STYLEGAN)
    for source in (path, tmp_path / "run"):
        found = read_log(source)
        assert found.rows[0] == (
            10, dict.fromkeys(("D_loss", "G_loss", "D_real", "D_fake", "r1_penalty"), 1.5),
        )  # fmt: skip
        assert len(found.rows) == 5


def test_event_files_below_a_folder_give_their_tags_its_name(tmp_path):
    events(tmp_path, ["loss"], "D")
    assert read_log(tmp_path).rows[0] == (10, {"D_loss": 1.5})


def test_scalars_of_tensorflow_2_are_read(tmp_path):
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.scalar.summary_v2 import scalar_pb
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(tmp_path))
    for step in range(4):
        writer.add_event(Event(step=step, summary=scalar_pb("d_loss", step + 0.5)))
    writer.close()
    found = read_log(tmp_path)
    assert [row for _, row in found.rows] == [{"D_loss": step + 0.5} for step in range(4)]


@pytest.mark.parametrize("content", [b"", b"step,D_loss\n1,2\n", b"\0" * 1000])
def test_files_that_only_have_the_name_of_event_files_are_refused(content, tmp_path):
    path = file(tmp_path, content, "events.out.tfevents.1")
    with pytest.raises(ValueError, match="tfevents.1 holds no scalars: it is no event file of TensorBoard"):
        read_log(path)


def test_a_cut_off_event_file_is_read_as_far_as_it_goes(tmp_path):
    path = events(tmp_path, ["d_loss"])
    path.write_bytes(path.read_bytes()[:-30])
    assert len(read_log(path).rows) >= 3
