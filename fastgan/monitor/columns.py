"""What each column of a run's tables is: its question, its explanation, its value without skill."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable
from typing import NamedTuple

from fastgan.monitor.curve import Curve, number, reads
from fastgan.monitor.diagnosis import Diagnosis
from fastgan.monitor.rules.game import (
    BALANCE,
    CLIPPED_OF_THE_DEAD,
    OVERFITTING,
    P_FAKE_WON,
    PENALTY_SHARE,
    SEPARATION_OF_THE_DEAD,
    SHORTCUT,
)
from fastgan.monitor.rules.images import SPREAD
from fastgan.monitor.rules.steps import TOO_LARGE, TOO_SMALL
from fastgan.monitor.rules.terms import CONFLICT, DOMINATES, IGNORED

QUESTIONS = (
    "Who is winning?",
    "What drives G?",
    "Does it learn the task?",
    "Is it collapsing?",
    "Are the steps sane?",
)
OTHER = "Other figures"
GAME, DRIVE, TASK, COLLAPSE, STEPS = QUESTIONS


class Explanation(NamedTuple):
    """What a curve is, and what its values say in this run."""

    question: str
    """One of QUESTIONS, or OTHER."""
    says: str
    """Plain text: what it is, in the run's own numbers, what is normal, what it would be without skill."""


def explain(column: str, diagnosis: Diagnosis) -> Explanation:
    """Explains a column of metrics.csv or evaluation.csv."""
    curve = Curve(column, diagnosis.history, diagnosis.facts)
    for pattern, question, says in COLUMNS:
        match = re.fullmatch(pattern, column)
        if match:
            text = says(match, curve) if callable(says) else match.expand(says)
            if question == TASK and column == curve.facts.generator_loss:
                question = GAME
            chance = "" if says is _accuracy else curve.chance()  # which says it itself
            return Explanation(question, " ".join(filter(None, (text, chance, curve.course()))))
    return Explanation(OTHER, " ".join(filter(None, (curve.chance(), curve.course()))))


def is_known(column: str) -> bool:
    """Whether there is an explanation of its own for a column."""
    return any(re.fullmatch(pattern, column) for pattern, _, _ in COLUMNS)


Says = Callable[["re.Match[str]", Curve], str]

# --- who is winning -----------------------------------------------------------------------------------------


def _d_loss(match: re.Match[str], curve: Curve) -> str:
    facts, loss = curve.facts, curve.now
    if facts.adversarial in ("wgan", "wgan-gp"):
        return (
            "D's loss, mean score of fakes minus that of reals: its size means nothing by itself; nearer to "
            "0, D finds less of a difference."
        )
    chance = facts.loss_of_chance
    if chance is None:
        return "D's loss. Its value without skill depends on the adversarial loss, which was not given."
    text = (
        f"D's {facts.adversarial} loss; {number(chance)} is what the same answer to every sample costs, "
        "0 is certainty."
    )
    real, fake = curve.latest("D_real"), curve.latest("D_fake")
    apart = abs(real - fake) if real is not None and fake is not None else None
    if loss is None:
        return text
    ratio = loss / chance
    return reads(
        text,
        (ratio < 0.02, "D is certain of nearly everything, and G gets little from it."),
        (ratio < 1 - BALANCE, "D is ahead of G, which is normal."),
        (ratio > 1 + BALANCE, "Above it, D does worse than by not looking at all."),
        (apart is None, "Near it, D can hardly tell."),
        (
            (apart or 0) > SEPARATION_OF_THE_DEAD,
            f"Near it is fine while scores still differ, as here, by {number(apart or 0)}: G's samples are "
            "hard to tell.",
        ),
        (True, "Scores of real and fake samples are the same, too: D may have stopped."),
    )


SCALES = {
    "bce": "0 is undecided",
    "nonsaturating": "0 is undecided",
    "relativistic": "only the difference to the other one counts",
    "hinge": "0 is undecided, and beyond 1 or -1 D gains nothing more",
    "wgan": "only the difference to the other one counts",
    "wgan-gp": "only the difference to the other one counts",
}


def _score(match: re.Match[str], curve: Curve) -> str:
    facts, real = curve.facts, match[1] == "real"
    samples = "real samples" if real else "G's samples"
    after = " after its update" if match[2] else ""
    if facts.scores_are_probabilities:
        return _probability(match, curve)
    scale = SCALES.get(facts.adversarial or "", "")
    if facts.adversarial == "lsgan":
        scale = f"D is trained to give {number(facts.real_label if real else facts.fake_label)}"
    high = "high means fake" if facts.critic_sign < 0 else "high means real"
    text = f"D's mean score of {samples}{after}; {', '.join(filter(None, (high, scale)))}."
    pair = curve.latest("D_real"), curve.latest("D_fake")
    if match[2] or pair[0] is None or pair[1] is None:
        return text
    return f"{text} D_real minus D_fake is {number(pair[0] - pair[1])} now."


def _probability(match: re.Match[str], curve: Curve) -> str:
    facts, real = curve.facts, match[1] == "real"
    samples = "a real sample" if real else "a sample of G"
    if facts.adversarial and not facts.has_probabilities:
        return (
            f"The sigmoid of D's score of {samples}, on average. The loss is {facts.adversarial}, which does "
            "not train D to give probabilities: read D_real and D_fake."
        )
    text = f"D's mean probability that {samples} is real; 0.5 is undecided."
    value = 0.5 if curve.now is None else curve.now
    other = curve.name.replace("real", "fake")
    if real:
        return reads(
            text,
            (
                value > 1 - P_FAKE_WON,
                f"D is certain, which is bad only if {other} is below {P_FAKE_WON:g}.",
            ),
            (value >= 0.5, "Between 0.5 and 0.9 both have something to learn."),
            (True, "Below 0.5 D takes real samples for fake."),
        )
    return reads(
        text,
        (value < P_FAKE_WON, "D recognizes nearly all: G gets little from that."),
        (value <= 0.5, "Between 0.1 and 0.5 both have something to learn."),
        (True, "Above 0.5 G fools D more often than not."),
    )


def _adversarial(match: re.Match[str], curve: Curve) -> str:
    """G's adversarial loss."""
    facts, kind = curve.facts, curve.facts.adversarial
    whose = {"ref": ", with styles from reference images", "lat": ", with styles from noise"}
    of = whose.get((match.groupdict().get("kind") or ""), "")
    if kind in ("bce", "nonsaturating", "relativistic"):
        text = f"G's adversarial loss{of}; {number(math.log(2))} where D is undecided, more where D is ahead."
    elif kind == "lsgan" and facts.loss_of_chance:
        text = (
            f"G's adversarial loss{of}; {number(facts.loss_of_chance / 2)} where D answers half way between "
            "its labels, 0 where D takes all for real."
        )
    elif kind is not None:
        sign = "" if facts.critic_sign < 0 else "minus "
        text = (
            f"G's adversarial loss{of}, {sign}D's mean score of fakes: it has no lower bound, and neither "
            "its sign nor its size says how good images are."
        )
    else:
        text = f"G's adversarial loss{of}: it follows D's mood and says little about images."
    return f"{text} {curve.weighted()}".rstrip()


def _penalty(match: re.Match[str], curve: Curve) -> str:
    values = curve.history.values(curve.name)
    computed = [value for value in values if value != 0]
    lines = len(curve.history.columns.get("D_loss", values))
    kinds = {
        "r1_penalty": "R1: the squared gradient of D's score of real samples",
        "D_penalty": "D's gradient penalty",
    }
    kind = kinds.get(curve.name, "A penalty in D's loss")
    text = f"{kind}, unweighted, as the mean over the steps that compute it."
    if match[1] and computed and len(computed) < len(values):
        text = (
            f"{kind}, unweighted: {number(statistics.fmean(values))} over all rows, "
            f"{number(statistics.fmean(computed))} over the {len(computed)} of {len(values)} that compute it."
        )
    elif match[1] and values and len(values) < lines:
        text += f" {len(values)} of {lines} log lines have such a step; over all lines it would be "
        text += f"{number(statistics.fmean(values) * len(values) / lines)}."
    weight, loss = curve.facts.penalties.get(curve.name), curve.latest("D_loss")
    if weight is None or curve.now is None:
        return text
    if weight == 0:
        return f"{text} Its weight is 0."
    text += f" With its weight of {number(weight)} it costs D {number(weight * curve.now)} a step"
    if not loss:
        return f"{text}."
    ratio = weight * curve.now / abs(loss)
    normal = "normal" if ratio < PENALTY_SHARE else "so much that D may hardly answer"
    return f"{text}, {ratio:.0%} of its adversarial loss: {normal}."


def _auc(match: re.Match[str], curve: Curve) -> str:
    text = (
        "How often D scores a real sample of a batch above a fake one: 0.5 by chance, 1 if always. It does "
        "not depend on the scale of scores."
    )
    value = curve.now
    if value is None:
        return text
    return reads(
        text,
        (value < 0.4, "Below 0.5 D ranks the wrong way round."),
        (value < 0.6, "D can hardly tell them apart."),
        (True, "D tells them apart; near 1 is normal early, and later means that G is behind."),
    )


# --- what drives G ------------------------------------------------------------------------------------------


def _share(match: re.Match[str], curve: Curve) -> str:
    name = match[1]
    text = f"The part of G's gradient that comes from {name}, at G's output, after weights; all add up to 1."
    value, is_adversarial = curve.now, name == curve.facts.adversarial_term
    if value is None:
        return text
    alone = len({each for each in curve.history.columns if each.startswith("share_")}) == 1
    return reads(
        text,
        (alone, "It is the only term that is measured."),
        (is_adversarial and value < IGNORED, "Below a hundredth, D has no say in what G learns."),
        (value > DOMINATES, "What the other terms ask for is drowned."),
        (is_adversarial, "A few hundredths to a half is usual for the adversarial term."),
    )


def _cosine(match: re.Match[str], curve: Curve) -> str:
    return reads(
        "The cosine between the gradients of two of G's terms: 1 if they ask for the same change of the "
        "output, 0 if they are indifferent to each other, -1 if they undo each other. Near 0 is usual.",
        ((curve.now or 0) < CONFLICT, "These two work against each other."),
    )


def _weight(match: re.Match[str], curve: Curve) -> str:
    name, values = match[1], curve.values
    whose = "D" if name.startswith("D_") else "G"
    text = f"The weight of {name} in {whose}'s loss."
    if not values or min(values) == max(values):
        return text
    low_at_first = abs(values[0]) < abs(values[-1])
    return f"{text} Its size {'rises' if low_at_first else 'falls'} by schedule, or follows gradients."


def _lambda_ds(match: re.Match[str], curve: Curve) -> str:
    text = (
        "The weight by which G is rewarded for making different styles look different. It falls to 0 over "
        "the run by schedule (ds_decay_epochs), so that images may settle."
    )
    return reads(text, (curve.now == 0, "It is there: from now on diversity is no longer asked for."))


# --- the task -----------------------------------------------------------------------------------------------

TERMS = {
    "secret": f"cross entropy of the message's bits; {number(math.log(2))} if they are guessed",
    "image": "distance of the stamped image from the image, over its colour channels",
    "lpips": "perceptual distance (LPIPS); 0 for equal images",
    "mse": "mean squared error of pixels",
    "l1": "mean absolute error of pixels",
    "l2": "mean squared error of pixels",
    "perceptual": "distance of features of a trained network",
    "texture": "distance of the features' Gram matrices, patch by patch",
    "const": "squared distance between the encoder's features of source and output",
    "category": "cross entropy of the category that D reads from G's output",
    "id": "mean absolute error of images that were translated with their own style",
    "Y": "squared error of luma", "U": "squared error of the colour channel U",
    "V": "squared error of the colour channel V",
}  # fmt: skip
STYLE_TERMS = {
    "sty": "how far the style read from a translation is from the one asked for",
    "cyc": "how far an image is from itself after a translation there and back",
}


def _term(match: re.Match[str], curve: Curve) -> str:
    name = match["term"]
    if curve.name == curve.facts.generator_loss:
        return _adversarial(match, curve)
    what = TERMS.get(name)
    text = f"G's term {curve.name}, unweighted{': ' + what if what else ''}; lower is better."
    return f"{text} {curve.weighted()}".rstrip()


def _style_term(match: re.Match[str], curve: Curve) -> str:
    how = "reference images" if match["kind"] == "ref" else "noise"
    if match["term"] == "ds":
        weight = curve.latest("lambda_ds")
        text = f"How far apart two styles from {how} make the same image; higher is more diverse."
        if weight is None:
            return text
        return text + (
            " lambda_ds is 0 now, so nothing holds it up any more."
            if weight == 0
            else f" It enters G's loss with minus lambda_ds, now {number(weight)}."
        )
    what = STYLE_TERMS[match["term"]].capitalize()
    return f"{what}, with styles from {how}; lower is better. {curve.weighted()}"


def _accuracy(match: re.Match[str], curve: Curve) -> str:
    what, where = match["what"], match["where"]
    on = f", on held-out images ({where})" if where else ""
    if what == "bit":
        chance = curve.facts.chance.get(curve.name, 0.5)
        return reads(
            f"The part of the message's bits that the decoder reads right{on}; {number(chance)} by guessing.",
            (
                curve.now is not None and curve.now < chance + 0.05,
                "It has learned nothing yet, which is normal in the first thousand steps alone.",
            ),
        )
    return f"The part of the messages that are read without a single wrong bit{on}; 0 for long."


BASES = {"source": "unchanged source", "bicubic": "bicubic interpolation"}


def _of_baseline(match: re.Match[str], curve: Curve) -> str:
    """PSNR and SSIM, beside a baseline where there is one."""
    name, measure = curve.name, match["measure"]
    kinds = {
        "psnr": "Peak signal to noise ratio in dB", "ssim": "Structural similarity, 1 for equal images",
        "lpips": "Perceptual distance (LPIPS), 0 for equal images", "l1": "Mean absolute error of pixels",
    }  # fmt: skip
    better = "higher" if measure in ("psnr", "ssim") else "lower"
    if match["base"]:
        return f"{kinds[measure]} of the {BASES[match['base']]}: to be beaten."
    text = f"{kinds[measure]}; {better} is better."
    for suffix in ("_bicubic", "_of_source"):
        base = curve.latest(name + suffix)
        if base is not None and curve.now is not None:
            ahead = (curve.now > base) == (better == "higher")
            side = "better" if ahead else "worse"
            return f"{text} That is {side} than {name + suffix}, {number(base)}, which takes no skill."
    return text


# --- collapse -----------------------------------------------------------------------------------------------


def _collapse(match: re.Match[str], curve: Curve) -> str:
    bound = curve.facts.collapse_ratio
    which = "to the nearest other one" if match[1] else "of all pairs"
    return reads(
        f"Distance between generated images ({which}) over that between real ones: 1 is as diverse as the "
        "data, 0 is one image.",
        (match[1] is None and (curve.now or 1) < bound, f"Below {number(bound)} counts as collapse."),
    )


def _duplicates(match: re.Match[str], curve: Curve) -> str:
    return (
        "The part of the generated images that nearly equal another one of them; 0 is normal, and much more "
        "means few kinds of image."
    )


NETWORKS = {"d": "D", "g": "G"}

# --- steps --------------------------------------------------------------------------------------------------


def _update(match: re.Match[str], curve: Curve) -> str:
    text = (
        f"How far one step moves {match[1]}'s weights, as a part of their size: about 0.001 is usual, "
        f"{number(TOO_SMALL)} to {number(TOO_LARGE)} is sane."
    )
    value = curve.now
    if value is None:
        return text
    return reads(
        text,
        (value > TOO_LARGE, "Steps are too large."),
        (value < TOO_SMALL, "Steps are too small to get anywhere."),
    )


def _range(match: re.Match[str], curve: Curve) -> str:
    whose, end = ("real" if match[1] == "real" else "generated"), match[2]
    assumed = curve.facts.value_range
    text = f"The {end} value of a batch of {whose} images."
    if assumed is None:
        return text
    return f"{text} The losses assume [{number(assumed[0])}, {number(assumed[1])}]."


COLUMNS: tuple[tuple[str, str, str | Says], ...] = (
    # Who is winning?
    (r"D_loss", GAME, _d_loss),
    (r"D_(real|fake)(_after)?", GAME, _score),
    (r"D_difference", GAME, r"D_real minus D_fake: what D has found; 0 if it gives all the same score."),
    (r"D_probability_(real|fake)(_after)?", GAME, _probability),
    (r"D_accuracy_real", GAME, "The part of the real samples that D scores as real; 0.5 by chance."),
    (r"D_accuracy_fake", GAME, "The part of G's samples that D scores as fake; 0.5 by chance."),
    (r"D_auc", GAME, _auc),
    (r"D_(real|fake)_loss", GAME, r"D's loss of \1 samples alone."),
    (r"D_ref_loss", GAME, "D's loss with styles from reference images; D_loss is the mean of both kinds."),
    (r"D_lat_loss", GAME, "D's loss with styles from noise; D_loss is the mean of both kinds."),
    (r"(?:(r1)|.+)_penalty", GAME, _penalty),
    (r"adv_(?P<kind>ref|lat)_loss", GAME, _adversarial),
    (r"G_loss", GAME, _adversarial),
    (r"probe_auc_held_out", GAME,
     "How often D scores a held-out real image above a generated one; 0.5 by chance, and less where D knows "
     "its training images by heart."),
    (r"probe_auc_fake", GAME,
     "How often D scores a training image above a generated one, with networks as at this evaluation; 0.5 by "
     "chance."),
    (r"probe_auc_null", GAME,
     "How often D tells real images from what the pipeline makes of them without G's contribution: 0.5 is "
     f"right; above {number(SHORTCUT)} D judges the pipeline, not G."),
    (r"probe_overfitting", GAME,
     "0 if D scores held-out real images like those it is trained on, 1 if like fakes; above "
     f"{number(OVERFITTING)} it knows its images by heart. It says little while probe_auc_fake is near 0.5."),
    # What drives G?
    (r"share_(.+)", DRIVE, _share),
    (r"cosine_(.+)", DRIVE, _cosine),
    (r"(.+)_weight", DRIVE, _weight),
    (r"lambda_ds", DRIVE, _lambda_ds),
    (r"l2_edge_gain", DRIVE,
     "How much more errors at the image's edges count in image_loss; it rises by schedule."),
    # Does it learn the task?
    (r"(?P<what>bit|str)_acc(_(?P<where>.+))?", TASK, _accuracy),
    (r"D_(NAME|X)_loss", TASK, "A further term of D's loss, beside the game's."),
    (r"D_category_loss", TASK, "D's cross entropy for the category of real and of generated glyphs, added."),
    (r"D_accuracy_category", TASK, "The part of the real glyphs whose category D reads right."),
    (r"(?P<term>sty|cyc)_(?P<kind>ref|lat)_loss", TASK, _style_term),
    (r"(?P<term>ds)_(?P<kind>ref|lat)_loss", COLLAPSE, _style_term),
    (r"(?P<term>(?!D_).+)_loss", TASK, _term),
    (r"(?P<measure>psnr|ssim|lpips|l1)(_y|_rgb)?(_(of_)?(?P<base>source|bicubic))?", TASK, _of_baseline),
    (r"l1_ratio(_worst)?", TASK,
     "Error of the drawn glyphs over that of the source glyphs as they are: 1 takes no skill, lower is "
     "better."),
    (r"(fid|frechet_distance_of_random_features)", TASK,
     "Distance between the features of generated and of held-out images, 0 if they are alike. Values compare "
     "only with the same count of images and the same features."),
    (r"classifier_acc", TASK,
     "Accuracy of the judge on real held-out images: the best that translated_acc can mean."),
    (r"translated_acc_(latent|reference)", TASK,
     r"The part of the translations (styles by \1) that the judge takes for the domain asked for; 0 if G "
     "leaves images as they are."),
    (r"cycle_l1", TASK, "Mean absolute error of held-out images after a translation there and back."),
    # Is it collapsing?
    (r"collapse_ratio(_nearest)?", COLLAPSE, _collapse),
    (r"spread_ratio", COLLAPSE,
     "How much G's samples of a batch differ, over how much real ones do: about 1 is right, below "
     f"{number(SPREAD)} they resemble each other."),
    (r"(pairwise_l1|lpips)_(latent|reference)", COLLAPSE,
     r"How far translations of one image in different styles (\2) lie apart; 0 if the style does nothing."),
    (r"probe_distance_ratio", COLLAPSE,
     "Distance between generated images over that between held-out ones: 1 is as diverse as the data."),
    (r"probe_memorized", COLLAPSE,
     "The part of the generated images that lie closer to a training image than half of the held-out ones "
     "do: 0.5 is right, near 1 G repeats its training set."),
    (r"probe_duplicates", COLLAPSE, _duplicates),
    (r"probe_stable_rank", COLLAPSE,
     "In how many directions the narrowest of D's layers passes its input (squared Frobenius over squared "
     "spectral norm): one that falls towards 1 announces a collapse."),
    (r"precision(_of_random_features)?", COLLAPSE,
     "The part of the generated images that lie among the real ones, by features: 1 is all; how real they "
     "are."),
    (r"recall(_of_random_features)?", COLLAPSE,
     "The part of the real images that lie among the generated ones, by features: 1 is all; near 0 most of "
     "the data is never generated."),
    (r"density(_of_random_features)?", COLLAPSE,
     "Like precision, but outliers among the real images count less; real images reach about 1, and more "
     "is possible."),
    (r"coverage(_of_random_features)?", COLLAPSE,
     "The part of the real images with a generated one nearby: real images reach nearly 1, one mode alone "
     "nearly 0."),
    # Are the steps sane?
    (r"(.+)_update_ratio", STEPS, _update),
    (r"(.+)_gradient_norm", STEPS,
     r"The norm of the gradient that \1's optimizer gets. Its size depends on the network; one that grows on "
     "and on, or is nearly 0, does not train."),
    (r"(.+)_weight_norm", STEPS,
     r"The norm of \1's weights, which should neither jump nor grow without end."),
    (r"(.+)_norm", STEPS, r"The norm of \1, which should not grow without end."),
    (r"D_clipped", STEPS,
     "The part of D's weights that the clip holds at its bound; above "
     f"{number(CLIPPED_OF_THE_DEAD)} D can express little."),
    (r"D_at_bound", STEPS,
     "The part of D's weights that are as large as its largest: near 0, unless weights are clipped."),
    (r"(.+)_untrained", STEPS, r"The part of \1's weights that no step trains; 0 is right."),
    (r"D_updated", STEPS, "The part of the steps that trained D, as the balance policy decides; 1 is all."),
    (r"(real|fake)_(lowest|highest)", STEPS, _range),
    (r"real_deviation", STEPS,
     "The standard deviation of the real images' values; about 1 for scaled latents."),
    (r"(.+)_range_(low|high)", STEPS, r"The \2 end of the range of values that \1 assumes."),
    (r"lr", STEPS, "The learning rate."),
    (r"lr_(.+)", STEPS, lambda match, curve: f"The learning rate of {NETWORKS.get(match[1], match[1])}."),
    (r"images_per_second|seconds_per_step", OTHER, "The speed of training alone, without evaluations."),
)  # fmt: skip
"""Pattern of whole names, question, and what the column is: the first match counts."""
