"""`make tables`: writes every measured number in README.md and the docs from benchmarks/results/*.json.

Two kinds of comments, which are invisible on the pages, mark the generated text. A number in running text
names its row and its field:

    <!--n:ops/yuv_l2/fastgan/4x3x400x400/full ms-->0.86 ms<!--/-->

and a table its name, a function of `TABLES`, and the function's arguments:

    <!-- table: op jpeg -->
    <!-- /table -->

See `Results.row` for the names of rows, `Results.figure` for those of fields. `--check`, a part of
`make lint`, writes nothing; it fails if a text differs from the results, if a number with a unit is outside
of a marker, or if a marker would break the page. A number that is not a measurement gets a reason:

    <!--fixed: kSmallest of csrc/cpu/outputs.cpp-->4 MB<!--/-->
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
# The machine whose rows the texts quote, where it has them; docs/benchmarks.md has the rows of all machines.
MACHINE = "amd-epyc-2-cores"
# Pages that other tools write, and the test that checks each.
WRITTEN_ELSEWHERE = {
    "docs/gpu-budgets.md": "tests/kernels/test_budgets.py",
    "docs/support.md": "tests/test_support.py",
}
# A marker after a backtick is an example in a text about markers.
NUMBER = re.compile(r"(?<!`)<!--n:(?P<name>[^>]*?)-->(?P<text>.*?)<!--/-->", re.DOTALL)
TABLE = re.compile(r"<!-- table: (?P<name>[^>]*?) -->\n(?P<text>.*?)<!-- /table -->", re.DOTALL)
FIXED = re.compile(r"(?<!`)<!--fixed: [^>]+-->.*?<!--/-->", re.DOTALL)
# Markdown takes a line that begins with a comment for HTML, which ends the paragraph.
BROKEN = re.compile(r"^\s*(?:[-*+]\s+|\d+\.\s+)?<!--(?:n:|fixed:)", re.MULTILINE)
UNIT = r"(?:[mµun]?s|dB|x|times|seconds?|minutes?|hours?|[kKMG]i?B|[GT]B/s|%)"
BY_HAND = re.compile(rf"(?<![\w.\-])\d+(?:[.,]\d+)*(?: {UNIT}| ?percent|{UNIT})(?![\w(])")
SPACED_X = re.compile(r"\d x$")
Row = dict[str, Any]


class UnknownResult(LookupError):
    """A marker names a row, field or table that does not exist."""


class Results:
    """The rows of the files in a folder of results, by the files' names without `.json`."""

    def __init__(self, folder: Path = ROOT / "benchmarks" / "results") -> None:
        self.files: dict[str, list[Row]] = {}
        for path in sorted(folder.glob("*.json")):
            content = json.loads(path.read_text(encoding="utf-8"))
            self.files[path.stem] = content if isinstance(content, list) else [content]

    def rows(self, file: str, **fields: str) -> list[Row]:
        return [row for row in self.files.get(file, []) if all(row.get(key) == fields[key] for key in fields)]

    def row(self, name: str) -> Row:
        """The one row of this name:

        * `ops/OP/PROVIDER/SIZE/MODE`, of `fastgan bench`, with freed memory returned to the system, or
          followed by `/kept` with freed memory kept by the process
        * `recipes/RECIPE/PROVIDER`, a training step of the preset `demo`, of `fastgan bench recipes`
        * `demos/RECIPE/PRESET`, of `fastgan bench demos`
        * `stream/PROVIDER`, of `fastgan bench stream`
        * `stegastamp-demo`, the result of `make demo`
        * `stress/PART`, of `make stress`
        * `questions/QUESTION/VARIANT`, of `fastgan bench questions`: the means over its seeds
        """
        kind, *parts = name.split("/")
        if kind == "questions" and len(parts) == 2:
            return self._means_of_question(*parts)
        if kind == "ops" and len(parts) == 4:
            parts.append("returned")
        keys = {
            "ops": ("op", "provider", "size", "mode", "memory"),
            "recipes": ("recipe", "provider"),
            "demos": ("recipe", "preset"),
            "stream": ("provider",),
            "stegastamp-demo": (),
            "stress": ("part",),
        }.get(kind)
        of_machine = ("recipes", "demos", "stream")
        file = MACHINE if kind == "ops" else f"{kind}-{MACHINE}" if kind in of_machine else kind
        if keys is None or len(keys) != len(parts):
            raise UnknownResult(f"no kind of rows is named as {name!r} is")
        fields = dict(zip(keys, parts, strict=True))
        matches = self.rows(file, **fields)
        if not matches:  # what that machine has not measured, another may have
            prefix = file.removesuffix(MACHINE)
            others = [other for other in self.files if prefix and other.startswith(prefix)]
            if kind == "ops":
                others = [other for other in self.files if not other.startswith(of_machine)]
            matches = [row for other in others for row in self.rows(other, **fields)]
        if len(matches) != 1:
            raise UnknownResult(f"{len(matches)} rows of {file}.json are {name!r}")
        return matches[0]

    def _means_of_question(self, question: str, variant: str) -> Row:
        """Means of a variant's figures over its seeds, those that have a number."""
        rows = [row for row in _question_rows(self, question) if row["variant"] == variant]
        if not rows:
            raise UnknownResult(f"no row of question {question!r} has the variant {variant!r}")
        columns = {name: [row["figures"][name] for row in rows] for name in rows[0]["figures"]}
        numbers = {name: [x for x in column if x is not None] for name, column in columns.items()}
        return {name: sum(values) / len(values) for name, values in numbers.items() if values}

    def figure(self, name: str) -> str:
        """The text of "ROW FIELD", where FIELD is

        `ms` or `s` (the time with its unit), `times` (the time over that of fastgan, "18x"), `saved` or
        `peak` (bytes with their unit), or a field of the row with a format: `minutes:.1f`,
        `figures.l1_ratio:.0%`.
        """
        row_name, _, field = name.rpartition(" ")
        row = self.row(row_name)
        if field in ("ms", "s"):
            return seconds(_time(row))
        if field == "times":
            return times(_time(row) / _time(self.row(_of_fastgan(row_name))))
        if field in ("saved", "peak"):
            if row[f"{field}_bytes"] is None:
                raise UnknownResult(f"{row_name!r} has no {field}_bytes")
            return megabytes(row[f"{field}_bytes"])
        path, _, style = field.partition(":")
        value: Any = row
        for key in path.split("."):
            if not isinstance(value, dict) or key not in value:
                raise UnknownResult(f"{row_name!r} has no {path}")
            value = value[key]
        return format(value, style)


def _time(row: Row) -> float:
    """A whole step's mean, which weights steps with a lazy penalty by their frequency; an op's median."""
    return row["mean_s"] if "mean_s" in row else row["median_s"]


def _of_fastgan(row_name: str) -> str:
    parts = row_name.split("/")
    parts[2] = "fastgan"
    return "/".join(parts)


def seconds(value: float) -> str:
    if value >= 0.9995:
        return f"{value:.2f} s" if value < 1.995 else f"{value:.1f} s"
    value *= 1e3
    return f"{value:.2g} ms" if value < 0.995 else f"{value:.1f} ms" if value < 99.95 else f"{value:.0f} ms"


def times(ratio: float) -> str:
    return f"{ratio:.2f}x" if ratio < 1.095 else f"{ratio:.1f}x" if ratio < 9.95 else f"{ratio:.0f}x"


def megabytes(size: int) -> str:
    if size < 99950:
        return f"{size} bytes" if size < 1000 else f"{size / 1e3:.1f} kB"
    return f"{size / 1e6:.1f} MB" if size < 99.95e6 else f"{size / 1e6:.0f} MB"


# Tables


def readme(results: Results) -> str:
    """Seven rows that compare fastgan with what people use today."""

    def line(
        what: str, peers: dict[str, str], ours: str, size: str, mode: str, memory: str = ""
    ) -> Iterator[str]:
        op = ours.partition("/")[0]
        base = f"ops/{ours}/{size}/{mode}{memory}"
        used.append(results.row(base))
        cells = []
        for column in ("eager", "compiled", "other"):
            entries = []
            for provider, name in peers.items():
                if name.partition(":")[0] != column:
                    continue
                row = results.row(f"ops/{op}/{provider}/{size}/{mode}{memory}")
                used.append(row)
                label = name.partition(":")[2]
                ratio = times(row["median_s"] / results.row(base)["median_s"])
                entries.append(f"{label + ': ' if label else ''}{seconds(row['median_s'])} ({ratio})")
            cells.append("; ".join(entries))
        yield f"| {what} | {results.figure(base + ' ms')} | {' | '.join(cells)} |"

    used: list[Row] = []
    image = "4x3x400x400"
    step = [results.row(f"recipes/dcgan/{provider}") for provider in ("fastgan", "reference")]
    lines = [
        "| forward + backward, or a step | fastgan | eager PyTorch | `torch.compile` | others |",
        "|---|---|---|---|---|",
        *line(
            "[`yuv_color_l2`](docs/losses.md), 4 x 3 x 400 x 400",
            {"eager port": "eager", "compiled reference": "compiled"}, "yuv_l2/fastgan", image, "full",
        ),
        *line(
            "[`jpeg_round_trip`](docs/jpeg.md), likewise",
            {"eager reference": "eager", "compiled reference": "compiled", "kornia": "other:kornia"},
            "jpeg/fastgan", image, "full",
        ),
        *line(
            "[`LPIPS`](docs/perceptual.md), VGG, 4 x 3 x 256 x 256, a new target every time",
            {"package": "eager:lpips", "package, compiled": "compiled:lpips"},
            "lpips/fastgan, new target", "4x3x256x256", "lpips",
        ),
        *line(
            "[`RMSprop`](docs/optimizers.md), both clips, 11 million parameters",
            {"single": "eager", "foreach": "other:foreach"}, "optimizer_step/fastgan", "dcgan 11M", "rmsprop",
        ),
        *line(
            "[`Adam`](docs/optimizers.md) with a moving average, 31 million",
            {"foreach": "eager:foreach", "fused": "other:fused Adam, `_foreach_lerp_`"},
            "optimizer_step/fastgan", "unet 31M", "adam",
        ),
        *line(
            "[`R1`](docs/penalties.md), compiled, StarGAN v2's discriminator, 16 x 3 x 64 x 64",
            {"eager": "eager", "compiled": "compiled"}, "r1/fastgan", "starganv2 64x64", "full", "/kept",
        ),
        "| a whole step of the [DCGAN](docs/recipes/dcgan.md) demo, nearly all convolutions | "
        f"{seconds(step[0]['mean_s'])} | "
        f"{seconds(step[1]['mean_s'])} ({times(step[1]['mean_s'] / step[0]['mean_s'])}) | | |",
    ]  # fmt: skip
    caption = f"Medians (of the whole step, the mean) on {machine_of([*used, *step])}, float32."
    return "\n".join([*lines, "", caption])


def op(results: Results, name: str, *sizes: str) -> str:
    """All rows of `fastgan bench NAME` on every machine; only those of the given sizes, if any are given."""
    texts = []
    for rows in results.files.values():
        rows = [row for row in rows if row.get("op") == name and (not sizes or row["size"] in sizes)]
        if rows:
            texts.append(_op_table(rows))
    if not texts:
        raise UnknownResult(f"no row of an op {name!r}")
    return "\n\n".join(texts)


MODES = {
    "full": "forward + backward", "double": "double backward", "r1": "R1's double backward",
    "rmsprop": "step of RMSprop", "adam": "step of Adam", "lpips": "LPIPS", "perceptual": "perceptual loss",
}  # fmt: skip


def _op_table(rows: list[Row]) -> str:
    providers = list(dict.fromkeys(row["provider"] for row in rows))
    providers.sort(key=lambda name: not name.startswith("fastgan"))
    states = list(dict.fromkeys(row["memory"] for row in rows))
    cases = list(dict.fromkeys((row["size"], row["mode"], row["memory"]) for row in rows))
    named = [*(["freed memory"] if states != [None] else []), *providers, "saved for backward"]
    lines = [f"| size | | {' | '.join(named)} |", "|---" * (len(named) + 2) + "|"]
    for case in cases:
        case_rows = (row for row in rows if (row["size"], row["mode"], row["memory"]) == case)
        by_provider = {row["provider"]: row for row in case_rows}
        ours = by_provider.get("fastgan", {}).get("median_s")
        cells = [] if states == [None] else [case[2]]
        for provider in providers:
            row = by_provider.get(provider)
            ratio = f" ({times(row['median_s'] / ours)})" if row and ours and provider != "fastgan" else ""
            cells.append(seconds(row["median_s"]) + ratio if row else "")
        cells.append(_saved(by_provider))
        lines.append(f"| {case[0]} | {MODES.get(case[1], case[1])} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"*{machine_of(rows)}.*"])


def _saved(by_provider: dict[str, Row]) -> str:
    """The bytes saved for backward: fastgan's, and those of the peer that saves most."""
    sizes = {name: row["saved_bytes"] for name, row in by_provider.items() if row["saved_bytes"] is not None}
    if "fastgan" not in sizes:
        return ""
    peers = {name: size for name, size in sizes.items() if not name.startswith("fastgan")}
    most = max(peers, key=lambda name: peers[name], default=None)
    return megabytes(sizes["fastgan"]) + (f" ({most}: {megabytes(peers[most])})" if most else "")


def recipes(results: Results) -> str:
    """Training steps of each recipe, fused and with the reference implementations."""
    lines = [
        "| recipe | batch | step | without monitor | reference | parts of the step | "
        "of it the optimizers (reference) | measured on |",
        "|---|---|---|---|---|---|---|---|",
    ]
    used = []
    for file, rows in results.files.items():
        if not file.startswith("recipes-"):
            continue
        for ours in (row for row in rows if row["provider"] == "fastgan"):
            same = [
                row for row in rows if all(row[key] == ours[key] for key in ("recipe", "preset", "precision"))
            ]
            by_provider = {row["provider"]: row for row in same}
            theirs, without = by_provider["reference"], by_provider.get("fastgan, without monitor")
            used += same
            parts = {name: share for name, share in ours["parts"].items() if not name.startswith("Optimizer")}
            lines.append(
                f"| `{ours['recipe']}`, preset `{ours['preset']}` | {ours['batch_size']} | "
                f"{seconds(ours['mean_s'])} | {seconds(without['mean_s']) if without else ''} | "
                f"{seconds(theirs['mean_s'])} ({times(theirs['mean_s'] / ours['mean_s'])}) | "
                f"{', '.join(f'{name} {share:.0%}' for name, share in parts.items())} | "
                f"{optimizers(ours):.0%} ({optimizers(theirs):.0%}) | {machine_of([ours])} |"
            )
    return "\n".join([*lines, "", f"*Means on {machine_of(used)}.*"])


def optimizers(row: Row) -> float:
    return sum(share for name, share in row["parts"].items() if name.startswith("Optimizer"))


def stream(results: Results) -> str:
    """Images per second of each reader."""
    lines = ["| reader | images per second | of the folder's | measured on |", "|---|---|---|---|"]
    for file, rows in results.files.items():
        if not file.startswith("stream-"):
            continue
        folder = next(row for row in rows if row["provider"] == "folder, threads")
        for row in sorted(rows, key=lambda row: -row["images_per_second"]):
            speed = row["images_per_second"]
            lines.append(
                f"| {row['provider']} | {speed:.{0 if speed >= 10 else 1}f} | "
                f"{speed / folder['images_per_second']:.2g} | {machine_of([row])} |"
            )
    return "\n".join(lines)


def demos(results: Results) -> str:
    """The results of each demo."""
    lines = [
        "| demo | steps | trained in | figures on held-out data | measured on |",
        "|---|---|---|---|---|",
    ]
    used = results.rows("stegastamp-demo")
    for row in used:
        figures = {name: row[name] for name in ("bit_acc_clean", "bit_acc_jpeg_50", "psnr", "ssim")}
        lines.append(_demo_line("stegastamp, demo", row, figures))
    for file, rows in results.files.items():
        if file.startswith("demos-"):
            used = [*used, *rows]
            lines += [_demo_line(f"{row['recipe']}, {row['preset']}", row, row["figures"]) for row in rows]
    return "\n".join([*lines, "", f"*{machine_of(used)}.*"])


def _demo_line(name: str, row: Row, figures: dict[str, float]) -> str:
    results = ", ".join(f"{figure} {value:.4g}" for figure, value in figures.items())
    return f"| {name} | {row['steps']} | {row['minutes']:.1f} minutes | {results} | {machine_of([row])} |"


def shares(results: Results, demo: str) -> str:
    """Shares of G's gradient in a demo (RECIPE/PRESET), and the cosines between its terms."""
    recipe, _, preset = demo.partition("/")
    rows = [
        row
        for file in results.files
        if file.startswith("demos-")
        for row in results.rows(file, recipe=recipe, preset=preset)
        if row.get("shares")
    ]
    if not rows:
        raise UnknownResult(f"no row of the demo {demo!r} has shares")
    row = max(rows, key=lambda row: row["date"])

    def lines(kind: str, title: str, style: str) -> Iterator[str]:
        yield f"| {title} | first tenth | last tenth |"
        yield "|---|---|---|"
        for name, means in row[kind].items():
            yield f"| `{name}` | {means['first']:{style}} | {means['last']:{style}} |"

    parts = [*lines("shares", "share of", ".1%"), "", *lines("cosines", "cosine between", ".2f")]
    return "\n".join([*parts, "", f"*{machine_of([row])}.*"])


def stress(results: Results) -> str:
    """How many calls and runs `make stress` made, and how many went wrong."""
    fields = {
        "valid": ("disagreements", "calls compared with the reference"),
        "junk": ("faults", "calls with junk"),
        "kills": ("faults", "kills of training runs"),
        "damage": ("faults", "damaged training runs"),
        "processes": ("faults", "faults in runs of several processes"),
    }
    lines = ["| | how often | went wrong |", "|---|---|---|"]
    rows = results.rows("stress")
    for row in rows:
        field, label = fields[row["part"]]
        lines.append(f"| {label} | {row['calls']} | {row[field]} |")
    return "\n".join([*lines, "", f"*{machine_of(rows)}.*"])


def verdicts(results: Results) -> str:
    """All verdicts of the monitor, from its rules."""
    from fastgan.monitor.rules import RULES  # imports torch, which the other tables do not need

    lines = [
        "| verdict | severity | it is said when | it reads | first | source |",
        "|---|---|---|---|---|---|",
    ]
    for rule in RULES:
        when = (rule.check.__doc__ or "").strip().splitlines()[0]
        read = ", ".join(f"`{name}`" for name in rule.columns)
        lines.append(
            f"| `{rule.name}` | {rule.severity} | {when} | {read} | {rule.advice or '-'} | {rule.source} |"
        )
    return "\n".join(lines)


def planted(results: Results) -> str:
    """Which planted faults the monitor has named, and its false alarms, on seeds that set no bounds."""
    rows = [row for file in results.files if file.startswith("verdicts-") for row in results.rows(file)]
    counted = [row for row in rows if row["half"] == "report"]
    lines = ["| in short runs | right names | named | at step | beside it |", "|---|---|---|---|---|"]
    for name in dict.fromkeys(row["run"] for row in counted):
        of_name = [row for row in counted if row["run"] == name]
        right = f"{sum(row['right'] for row in of_name)} of {len(of_name)}"
        if of_name[0]["is_fault"]:
            names = ", ".join(f"`{each}`" for each in of_name[0]["names"])
            steps = ", ".join(str(row["named_at"] or "-") for row in of_name)
            beside = ", ".join(f"`{each}`" for each in sorted({b for row in of_name for b in row["beside"]}))
            lines.append(f"| {name} ({of_name[0]['recipe']}) | {names} | {right} | {steps} | {beside} |")
        else:
            lines.append(f"| healthy: {name} | | {right} without alarm | | |")
    faults = [row["right"] for row in counted if row["is_fault"]]
    healthy = [row["right"] for row in counted if not row["is_fault"]]
    lines += [
        "",
        f"Named: {sum(faults)} of {len(faults)} faults. "
        f"Alarms: {len(healthy) - sum(healthy)} in {len(healthy)} healthy runs.",
        "",
        f"*{machine_of(counted)}.*",
    ]
    return "\n".join(lines)


def question(results: Results, name: str) -> str:
    """Figures and verdicts of each variant of a question of `fastgan bench questions`."""
    from fastgan.bench.rows import mean_and_deviation, said  # imports torch

    rows = _question_rows(results, name)
    if not rows:
        raise UnknownResult(f"no row of a question {name!r}")
    figures = [*rows[0]["figures"]]
    titles = " | ".join(figure if " " in figure else f"`{figure}`" for figure in figures)
    lines = [f"| | {titles} | the monitor says |", "|---" * (len(figures) + 2) + "|"]
    for variant in dict.fromkeys(row["variant"] for row in rows):
        of_variant = [row for row in rows if row["variant"] == variant]
        values = (mean_and_deviation([row["figures"][figure] for row in of_variant]) for figure in figures)
        verdicts = ", ".join(_as_code(verdict) for verdict in said(of_variant))
        lines.append(f"| {variant} | {' | '.join(values)} | {verdicts} |")
    seeds = sorted({row["seed"] for row in rows})
    note = f"Mean ± standard deviation of {len(seeds)} seeds, {rows[0]['recipe']}"
    return "\n".join([*lines, "", f"*{note}; {machine_of(rows)}.*"])


def _question_rows(results: Results, name: str) -> list[Row]:
    """The rows of a question, variants in their order."""
    files = (file for file in results.files if file.startswith("questions-"))
    rows = [row for file in files for row in results.rows(file, question=name)]
    return sorted(rows, key=lambda row: (row["number"], row["seed"]))


def _as_code(verdict: str) -> str:
    """NAME and SUBJECT of "NAME SUBJECT (2 of 3)" as code."""
    name, bracket, count = verdict.partition(" (")
    return f"`{name}`{bracket}{count}"


def figures(results: Results) -> str:
    """The figures that the monitor's rules read, and what each is."""
    from fastgan.monitor.columns import describe
    from fastgan.monitor.rules import RULES

    names = dict.fromkeys(name for rule in RULES for name in rule.columns)
    lines = ["| figure | what it is | verdicts that read it |", "|---|---|---|"]
    for name in names:
        shown = name.replace("*", "A_B" if name == "cosine_*" else "NAME")
        readers = dict.fromkeys(f"`{rule.name}`" for rule in RULES if name in rule.columns)
        lines.append(f"| `{shown}` | {describe(shown)} | {', '.join(readers)} |")
    return "\n".join(lines)


def exchange(results: Results) -> str:
    """The share of the gradients' exchange that is hidden behind backward, by `fastgan bench exchange`."""
    rows = [row for file in results.files if file.startswith("exchange-") for row in results.rows(file)]
    lines = [
        "| recipe | processes | exchanged | buckets | backward | exchange | waited for | hidden | step | "
        "with one exchange after backward | same bits |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row["recipe"], row["processes"], row["part"])):
        if row["variant"] != "buckets":
            continue
        same = ("recipe", "preset", "processes", "part", "device")
        (flat,) = (
            other
            for other in rows
            if other["variant"] == "flat" and all(other[key] == row[key] for key in same)
        )
        lines.append(
            f"| `{row['recipe']}` | {row['processes']} | {megabytes(row['bytes'])} | {row['buckets']} | "
            f"{seconds(row['backward_s'])} | {seconds(row['exchange_s'])} | {seconds(row['exposed_s'])} | "
            f"{row['hidden']:.0%} | {seconds(row['median_s'])} | "
            f"{seconds(flat['median_s'])} ({times(flat['median_s'] / row['median_s'])}) | "
            f"{'yes' if row['same_bits'] else 'no'} |"
        )
    return "\n".join([*lines, "", f"*{machine_of(rows)}.*"])


def scale(results: Results) -> str:
    """Steps on many H100 as `fastgan bench scale` predicts them, and with no part of the exchange hidden."""
    rows = results.rows("scale")
    gpus = [step["gpus"] for step in rows[0]["steps"]]
    titles = " | ".join("1 GPU" if count == 1 else f"{count} GPUs" for count in gpus)
    lines = [
        f"| recipe | precision | batch per GPU | TFLOP | exchanged | sums | hidden | {titles} |",
        "|---" * (7 + len(gpus)) + "|",
    ]
    for row in rows:
        cells = [
            f"{seconds(step['step_s'])} ({seconds(step['nothing_hidden_s'])})"
            if step["gpus"] > 1
            else seconds(step["step_s"])
            for step in row["steps"]
        ]
        hidden = f"{row['hidden']:.0%}" + ("" if row["hidden_is_measured"] else " (another's)")
        lines.append(
            f"| `{row['recipe']}` | {row['precision']} | {row['batch_size']} | "
            f"{row['flops_per_image'] * row['batch_size'] / 1e12:.3g} | {megabytes(row['bytes'])} | "
            f"{row['sums']} | {hidden} | {' | '.join(cells)} |"
        )
    return "\n".join([*lines, "", f"*Predicted, {max(row['date'] for row in rows)}; measured on no GPU.*"])


def patches(results: Results) -> str:
    """What `fastgan.patch` replaces in each library, and what it does not, as declared."""
    from fastgan.patching import _declare

    lines = ["| name | replaced | not replaced |", "|---|---|---|"]
    for name in _declare.names():
        target = _declare.target_of(name)
        assert target is not None
        declared = (*target.replacements, *target.extensions)
        serves = [(f"`{each.path.removeprefix('__main__.')}`", each.serves) for each in declared]
        replaced = dict.fromkeys(path + (f" ({cases})" if cases else "") for path, cases in serves)
        kept = [f"`{kept.path}`: {kept.because}" for kept in target.kept]
        lines.append(f"| `{name}` | {'<br>'.join(replaced) or 'nothing'} | {'<br>'.join(kept)} |")
    return "\n".join(lines)


def trainers(results: Results) -> str:
    """Agreement, time and memory of public trainers without and with the patch."""
    rows = [row for file in results.files if file.startswith("trainers-") for row in results.files[file]]
    lines = [
        "| trainer | losses, float64 | parameters, float64 | losses, float32 | after one rounding | "
        "step before | after | peak memory before | after | served in a step |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row["trainer"].lower()):
        agreement = [
            "-" if row[key] is None else f"{row[key]:.0e}"
            for key in ("float64_losses", "float64_weights", "float32_losses", "rounding_losses")
        ]
        name = f"[{row['trainer']}](https://github.com/{row['repository']}) {row['clone'] or ''}".strip()
        lines.append(
            f"| {name} | {' | '.join(agreement)} | {seconds(row['before_s'])} | {seconds(row['after_s'])} "
            f"({times(row['ratio'])}) | {megabytes(row['before_bytes'])} | {megabytes(row['after_bytes'])} | "
            f"{row['served']} |"
        )
    return "\n".join([*lines, "", f"*{machine_of(rows)}.*"])


def machine_of(rows: Iterable[Row]) -> str:
    """The distinct devices, torch versions and days of these rows."""
    rows = list(rows)
    devices, versions, days = (
        sorted({shorten(row[field]) for row in rows})
        for field, shorten in (
            ("device", str), ("torch", lambda version: ".".join(version.split(".")[:2])), ("date", str),
        )
    )  # fmt: skip
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"{', '.join(devices)}, torch {' and '.join(versions)}, {when}"


TABLES: dict[str, Callable[..., str]] = {
    function.__name__: function
    for function in (
        readme, op, recipes, demos, stream, shares, stress, verdicts, planted, question, figures, exchange,
        scale, patches, trainers,
    )
}  # fmt: skip


# Texts


def texts(root: Path = ROOT) -> list[Path]:
    named = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "csrc/README.md")
    pages = [*(root / name for name in named), *sorted((root / "docs").rglob("*.md"))]
    return [path for path in pages if path.is_file()]


def write(text: str, results: Results) -> str:
    """The text with all marked numbers and tables replaced by those of the results."""

    def table(marked: re.Match[str]) -> str:
        name, *arguments = re.split(r",? +(?=\S)", marked["name"], maxsplit=1)
        if name not in TABLES:
            raise UnknownResult(f"no table {name!r}, there are {', '.join(TABLES)}")
        # Sizes contain commas and spaces, and are therefore separated by semicolons.
        words = [word.strip() for word in ";".join(arguments).split(";") if word.strip()]
        return f"<!-- table: {marked['name']} -->\n\n{TABLES[name](results, *words)}\n\n<!-- /table -->"

    def number(marked: re.Match[str]) -> str:
        return f"<!--n:{marked['name']}-->{results.figure(marked['name'])}<!--/-->"

    return NUMBER.sub(number, TABLE.sub(table, text))


def written_by_hand(text: str) -> list[tuple[int, str]]:
    """Line numbers and unmarked text that looks like a measurement."""

    def blank(marked: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", marked[0])

    for pattern in (TABLE, NUMBER, FIXED):
        text = pattern.sub(blank, text)
    numbers = []
    for match in BY_HAND.finditer(text):
        if not SPACED_X.search(match[0]):
            numbers.append((text.count("\n", 0, match.start()) + 1, match[0]))
    return numbers


def faults_of(path: Path, results: Results, root: Path = ROOT) -> list[str]:
    """The messages of `--check` for a page."""
    name, text = path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")
    if name in WRITTEN_ELSEWHERE:
        return []
    faults = []
    for marker, expected in zip(_marked(text), _marked(write(text, results)), strict=True):
        if marker[0] != expected[0]:
            line = text.count("\n", 0, marker.start()) + 1
            faults.append(f"{name}:{line}: {marker['name']} differs from the results: run `make tables`")
    if len(re.findall(r"(?<!`)<!--(?:n:|fixed: )", text)) != len(re.findall(r"(?<!`)<!--/-->", text)):
        faults.append(f"{name}: a marker without its end, or an end without its marker")
    for match in BROKEN.finditer(text):
        line = text.count("\n", 0, match.end()) + 1
        faults.append(f"{name}:{line}: a line must not begin with a marker, Markdown takes it for HTML")
    for line, number in written_by_hand(text):
        faults.append(f"{name}:{line}: {number!r} is neither marked nor fixed; tools/tables.py says how")
    return faults


def _marked(text: str) -> list[re.Match[str]]:
    return [*TABLE.finditer(text), *NUMBER.finditer(text)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Writes the numbers of README and docs from benchmarks/results."
    )
    parser.add_argument("--check", action="store_true", help="write nothing, fail where they differ")
    options = parser.parse_args(arguments)
    results, faults = Results(), []
    for path in texts():
        try:
            if options.check:
                faults += faults_of(path, results)
            elif path.relative_to(ROOT).as_posix() not in WRITTEN_ELSEWHERE:
                path.write_text(write(path.read_text(encoding="utf-8"), results), encoding="utf-8")
        except UnknownResult as error:
            faults.append(f"{path.relative_to(ROOT)}: {error}")
    print("\n".join(faults), end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
