"""Names of figures in logs of other trainers, and those that rules know for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from fastgan._arguments import near_name
from fastgan._names import printable

LONGEST_LIST = 400
"""Characters of names in an error, which may come from a file that is no table at all."""

Row = dict[str, float]
_D = r"(?:d|dis|disc|discriminator|critic|netd)"
_G = r"(?:g|gen|generator|netg)"
_LOSS = r"(?:loss|losses|err|error)"
_SCORE = r"(?:score|scores|logit|logits|output|outputs|out|pred|validity|mean)"
_KIND = r"(?:gan|adv|adversarial)"
PART_REAL, PART_FAKE = "D_real_loss", "D_fake_loss"
SIGNS = {"D_accuracy_real": r"loss_signs_real", "D_accuracy_fake": r"loss_signs_fake"}
"""Means of the signs of D's scores, as StyleGAN's authors log them."""
# G's terms as pix2pix, pix2pixHD and SPADE call them, whose D_real and D_fake are D's losses.
_BESIDE_LOSSES = re.compile(r"(loss_)?(g_gan(_.*)?|gan|gan_feat|g_vgg)")
# Patterns of what is left of foreign names after `plain_name`, the surest first.
FOREIGN: dict[str, tuple[str, ...]] = {
    "D_loss": (
        rf"{_D}_?{_LOSS}(_(total|all))?", rf"{_LOSS}_?{_D}(_(total|all|{_LOSS}))?", rf"total_{_D}_{_LOSS}",
        rf"{_D}_total(_{_LOSS})?", rf"{_D}_{_KIND}(_{_LOSS})?", rf"{_LOSS}_{_D}_{_KIND}",
        rf"{_KIND}_{_LOSS}_{_D}", r"(loss_)?d_a",
    ),
    # G's adversarial loss before the sum of all its terms.
    "G_loss": (
        rf"{_G}_{_KIND}(_{_LOSS})?", rf"{_G}_{_LOSS}_{_KIND}", rf"{_LOSS}_{_G}_{_KIND}",
        rf"(adv|adversarial)_{_LOSS}", rf"{_LOSS}_(adv|adversarial)",
        rf"{_KIND}_{_LOSS}_{_G}", rf"{_G}_?{_LOSS}(_(total|all))?", rf"{_LOSS}_?{_G}(_(total|all|{_LOSS}))?",
        rf"total_{_G}_{_LOSS}", rf"{_G}_total(_{_LOSS})?", r"(loss_)?g_a", "g_latent_adv", "g_reference_adv",
        r"(loss_)?gan",
    ),
    "D_real": (
        "d_x", "dx", rf"{_D}_real", rf"{_D}_real_{_SCORE}", rf"{_D}_{_SCORE}_real", rf"{_SCORE}_real",
        rf"real_{_SCORE}", rf"{_LOSS}_scores_real", "score_d", "d_score", rf"{_SCORE}_{_D}_real",
    ),
    "D_fake": (
        "d_g_z(_?1)?", "d_?gz(_?1)?", rf"{_D}_fake", rf"{_D}_fake_{_SCORE}", rf"{_D}_{_SCORE}_fake",
        rf"{_SCORE}_fake", rf"fake_{_SCORE}", rf"{_LOSS}_scores_fake", "score_g", "g_score",
        rf"{_SCORE}_{_D}_fake",
    ),
    "D_probability_real": (r"(d_)?prob(ability)?_real", r"(d_)?real_prob(ability)?"),
    "D_probability_fake": (r"(d_)?prob(ability)?_fake", r"(d_)?fake_prob(ability)?"),
    "D_accuracy_real": (r"(d_)?acc(uracy)?_real", r"(d_)?real_acc(uracy)?", SIGNS["D_accuracy_real"]),
    "D_accuracy_fake": (r"(d_)?acc(uracy)?_fake", r"(d_)?fake_acc(uracy)?", SIGNS["D_accuracy_fake"]),
    "D_auc": (r"d_auc",),
    PART_REAL: (
        rf"{_D}_?{_LOSS}_real", rf"{_LOSS}_?{_D}_real", rf"{_D}_real_{_LOSS}", rf"{_LOSS}_real_{_D}",
        rf"real_{_D}_{_LOSS}", "d_latent_real", "d_reference_real",
    ),
    PART_FAKE: (
        rf"{_D}_?{_LOSS}_fake", rf"{_LOSS}_?{_D}_fake", rf"{_D}_fake_{_LOSS}", rf"{_LOSS}_fake_{_D}",
        rf"fake_{_D}_{_LOSS}", "d_latent_fake", "d_reference_fake",
    ),
    "r1_penalty": (
        rf"(({_LOSS}|{_D})_)?r1(_penalty|_{_LOSS})?", rf"{_D}_r1_{_LOSS}", r"d_(latent|reference)_reg",
    ),
    "D_penalty": (rf"({_D}_|{_LOSS}_)?(gp|gradient_penalty)(_{_LOSS})?",),
    "share_G_loss": (rf"{_KIND}_share", rf"share_{_KIND}"),
    "lambda_ds": (r"(g_)?lambda_ds",),
    **{
        f"{ours}_{short}_loss": (rf"g_{kind}_{ours}",)
        for kind, short in (("latent", "lat"), ("reference", "ref"))
        for ours in ("sty", "ds", "cyc")
    },
    "lr_g": (rf"lr_{_G}", rf"{_G}_lr"),
    "lr_d": (rf"lr_{_D}", rf"{_D}_lr"),
    "lr": (r"lr", r"learning_rate"),
    **{name: (name,) for name in ("psnr", "ssim", "lpips", "fid")},
}  # fmt: skip
NOT_OF_THE_GAME = {"lr", "lr_d", "lr_g", "lambda_ds", "psnr", "ssim", "lpips", "fid"}
# Names of figures on other data than the training's.
_HELD_OUT = re.compile(r"(val|valid|validation|test|eval|evaluation)(_.*)?")
_AROUND = (
    re.compile(r"^(train|training|metrics?|scalars?|losses|stats?|epoch|batch|avg|mean|running|log)_(?=.)"),
    re.compile(r"(?<=.)_(epoch|step|avg|train|batch|iter)$"),
)


def listed(names: Sequence[str], mark: str = ", ") -> str:
    """Names for a message."""
    text = mark.join(names)
    return printable(text if len(text) <= LONGEST_LIST else f"{text[:LONGEST_LIST]}...")


def plain_name(name: str) -> str:
    """A name in lower case with single underscores, without words such as train and avg."""
    plain = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).casefold()).strip("_")
    before = ""
    while plain != before:
        before = plain
        for words in _AROUND:
            plain = words.sub("", plain)
    return re.sub(r"^l_(?=[dg]_)", "loss_", plain)  # BasicSR


def recognized(header: Sequence[str], columns: Mapping[str, str], notes: list[str]) -> dict[str, str]:
    """Names in the file by names that rules know: as asked for, then the same ones, then recognized ones."""
    names = {ours: theirs for ours, theirs in columns.items() if ours != "step"}
    free = [name for name in header if name not in columns.values()]
    for name in FOREIGN:
        if name in free and name not in names:
            names[name] = name
    plain = {name: plain_name(name) for name in free if name not in names.values()}
    # Lightning writes figures of steps beside their means over epochs, of which there are fewer.
    names_by_steps = sorted(plain, key=lambda name: name.casefold().endswith("_epoch"))
    candidates = {name: plain[name] for name in names_by_steps if not _HELD_OUT.fullmatch(plain[name])}
    for ours, patterns in FOREIGN.items():
        found = (
            name for pattern in patterns for name, text in candidates.items() if re.fullmatch(pattern, text)
        )
        theirs = next(found, None)
        if ours not in names and theirs is not None:
            names[ours] = theirs
            del candidates[theirs]
    _take_scores_for_losses(names, header, columns, notes)
    _choose_of_several(names, plain, notes)
    return names


def _take_scores_for_losses(
    names: dict[str, str], header: Sequence[str], columns: Mapping[str, str], notes: list[str]
) -> None:
    """pix2pix, pix2pixHD and SPADE call D's two losses by the names that others give to its scores."""
    beside = next((name for name in header if _BESIDE_LOSSES.fullmatch(plain_name(name))), None)
    if beside is None or "D_loss" in names:
        return
    taken = []
    for score, part in (("D_real", PART_REAL), ("D_fake", PART_FAKE)):
        is_free = score in names and score not in columns and part not in names
        if is_free and re.fullmatch(rf"{_D}_(real|fake)", plain_name(names[score])):
            names[part] = names.pop(score)
            taken.append(names[part])
    if taken:
        notes.append(
            f"{' and '.join(taken)} count as losses of D, as in pix2pix and SPADE, since {beside} is there; "
            f"if they are D's scores: --columns D_real=...,D_fake=..."
        )


def _choose_of_several(names: dict[str, str], plain: Mapping[str, str], notes: list[str]) -> None:
    """Tells of logs of two games: CycleGAN's pairs of networks, StarGAN v2's two kinds of styles."""
    by_plain = {text: name for name, text in plain.items()}
    chosen = {name: ours for ours, name in names.items()}
    for pattern, other, what in (
        (r"((?:loss_)?[dg])_a", r"\1_b", "two pairs of networks"),
        (r"([dg])_latent_(real|fake|reg|adv)", r"\1_reference_\2", "styles from noise and from references"),
    ):
        others = {name: by_plain.get(re.sub(f"^{pattern}$", other, text)) for name, text in plain.items()}
        pairs = {name: others[name] for name in plain if name in chosen and others[name] not in (None, name)}
        if pairs:
            use = ",".join(f"{chosen[name]}={second}" for name, second in pairs.items())
            notes.append(
                f"the file has {what}: rules follow {', '.join(pairs)}; for the other: --columns {use}"
            )


def parse_columns(text: str, is_known: Callable[[str], bool], known: Sequence[str]) -> dict[str, str]:
    """Names in the file by our names, from "D_real=D(x),D_fake=D(G(z))"; ours in lower case too.

    Raises:
        ValueError: not of that form, a name that no rule knows, or a name twice.
    """
    columns: dict[str, str] = {}
    lower = {name.casefold(): name for name in known}
    for part in re.split(r",(?=\s*\w+\s*=)", text):
        ours, equals, theirs = (piece.strip() for piece in part.partition("="))
        if not equals or not ours or not theirs:
            raise ValueError(f"--columns must be NAME=COLUMN,NAME=COLUMN,..., got {printable(part)!r}")
        ours = lower.get(ours.casefold(), ours)
        if ours != "step" and not is_known(ours):
            near = near_name(ours, known)
            raise ValueError(
                f"--columns: rules know no {printable(ours)!r}; "
                + (f"did you mean {near}?" if near else f"they know {', '.join(known)} and others")
            )
        if ours in columns or theirs in columns.values():
            raise ValueError(f"--columns has {printable(ours if ours in columns else theirs)!r} twice")
        columns[ours] = theirs
    return columns
