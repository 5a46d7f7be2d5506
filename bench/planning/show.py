"""Plans and profiles as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from bench.models.card import ModelCard
from bench.planning.dry_run import DryRun
from bench.planning.gpus import ARITHMETIC, GIB, RESERVED, GpuSpec
from bench.planning.plan import Plan
from bench.planning.profiling import Profile
from bench.planning.sizes import Sizes
from bench.training.algorithm import Algorithm

SECTION = None
Row = tuple[str, str, str] | None

MEMORY = {
    "weights": "in float32 where they are trained",
    "reference": "a frozen copy",
    "gradients": "",
    "moments": "optimizer state",
    "snapshots": "copies of the weights: earlier ones, or their average",
    "activations": "of one micro-batch, including working memory",
}
CALLS = {
    "policy_forwards": "policy forwards",
    "policy_backwards": "policy backwards",
    "reference_forwards": "reference forwards",
}


def plan_table(title: str, plan: Plan, sizes: Sizes) -> Table:
    """Everything that does not depend on the GPU."""
    return figures_table(title, plan_rows(plan, sizes))


def figures_table(title: str, rows: Iterable[Row]) -> Table:
    """Labels, figures and remarks; None separates groups."""
    table = Table(title=escape(title), title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("what", no_wrap=True)
    table.add_column("how much", justify="right", no_wrap=True)
    table.add_column("", style="dim")
    for row in rows:
        if row is SECTION:
            table.add_section()
            table.add_row("", "", "")
        else:
            table.add_row(*map(escape, row))
    return table


def plan_rows(plan: Plan, sizes: Sizes) -> Iterable[Row]:
    """Labels, figures and remarks; None separates groups."""
    images = sizes.images
    training, settings = plan.training, plan.settings
    unit = "sample" if plan.reward_calls else "pair"
    yield ("denoiser", count(training.parameters), f"parameters, {count(training.trainable)} of them trained")
    for name, parameters in plan.encoding.parameters.items():
        yield (name, count(parameters), "parameters")
    yield SECTION
    for name, remark in MEMORY.items():
        size = getattr(training.memory, name)
        if size:
            yield (name, gibibytes(size), remark)
    yield ("memory in training", gibibytes(training.memory.peak), f"micro_batch_size {settings.micro_batch_size}")
    yield (
        "memory in encoding",
        gibibytes(plan.encoding.memory),
        "before training; the encoders are released afterwards",
    )
    images_only = f"images are made in {plan.image_precision}; metrics, which are loaded afterwards, are not counted"
    yield ("memory in evaluating", gibibytes(plan.evaluating), images_only)
    yield SECTION
    for name, label in CALLS.items():
        if plan.calls[name]:
            yield (label, f"{plan.calls[name]:.4g}", f"images per {unit}, {operations(training.flops[name])} each")
    if plan.reward_calls:
        yield (
            "reward calls",
            f"{plan.reward_calls}",
            "per sample; neither their time and memory nor the decoder's are counted",
        )
    yield (f"training, per {unit}", operations(plan.flops_per_pair), "")
    yield ("encoding, per pair", operations(plan.encoding_flops), "once for all algorithms")
    if plan.prepared:
        yield ("preparing", f"{plan.prepared:,}", "forwards of the base model, before training")
    if settings.rounds is not None:
        yield ("images of the rounds", f"{plan.pictures:,}", f"at most, of {plan.image_forwards} forwards each")
        by = f"at most, by {settings.rounds.judge}, of images; fits of it are included, their held-out pairs are not"
        yield ("reward calls", f"{plan.judged:,}", by)
    if plan.pairs is not None and plan.flops is not None:
        steps = plan.pairs / settings.global_batch_size
        yield (f"{unit}s", f"{plan.pairs:,.0f}", f"{steps:,.0f} steps of {settings.global_batch_size}")
        yield ("training", operations(plan.flops), "")
    each = f"{images:,} images of {plan.image_forwards} forwards in {plan.image_precision}, for the base model and every run"
    yield ("evaluating", operations(images * plan.flops_per_image), each)
    yield SECTION
    yield ("cache of latents", size_on_disk(sizes.rows * plan.latent_bytes), f"for {sizes.rows:,} rows of the data")
    texts = size_on_disk(sizes.captions * plan.text_bytes)
    yield ("cache of texts", texts, f"for {sizes.captions:,} different captions")
    yield ("checkpoint", size_on_disk(plan.checkpoint_bytes), "twice that while a new one is written")
    if settings.rounds is not None and plan.pairs is not None:
        work = size_on_disk(plan.pictures // settings.rounds.number * plan.image_bytes)
        yield (
            "rounds",
            size_on_disk(rounds_bytes(plan)),
            f"at most: weights and pairs of each; and {work} while one is made",
        )
    yield ("evaluation images", size_on_disk(images * plan.image_bytes), f"at most, for {images:,} images")


def rounds_bytes(plan: Plan) -> int:
    """What a training in rounds keeps on disk beside its weights, at most; 0 for other training.

    These are the weights and the pairs of each round; adapters of all rounds are joined to the run's weights, which are as much larger.
    """
    if plan.settings.rounds is None or plan.pairs is None:
        return 0
    pictures = round(2 * (plan.pairs + plan.opponents) * plan.image_bytes)
    number = plan.settings.rounds.number
    joined = number - 1 if plan.settings.trainable == "lora" else 0
    return (number + joined) * plan.weights_bytes + pictures


def gpus_table(plan: Plan, gpus: Mapping[str, GpuSpec], utilisation: float, images: int) -> Table:
    """How long a run takes on each GPU, and whether it fits."""
    title = assumptions(plan.processes, [plan.settings.precision], utilisation)
    table = titled_table(title, ("GPU", "memory", "fits", "training", f"{images:,} images"))
    for name, gpu in gpus.items():
        training = plan.seconds(gpu.peak(plan.settings.precision), utilisation)
        throughput = gpu.peak(plan.image_precision) * utilisation * plan.processes
        evaluating = images * plan.flops_per_image / throughput
        lacking = plan.lacking(gpu)
        fits = f"no: {' and '.join(lacking)}" if lacking else "yes"
        table.add_row(name, f"{gpu.memory / GIB:.1f} GiB", fits, duration(training), duration(evaluating))
    return table


def assumptions(processes: int, precisions: Iterable[str], utilisation: float) -> str:
    """What the hours of a table stand on."""
    where = "on one GPU" if processes == 1 else f"on {processes} GPUs (DDP)"
    arithmetic = " or ".join(ARITHMETIC[each] for each in precisions)
    return f"{where}, {utilisation:.0%} MFU assumed ({arithmetic}), {RESERVED / GIB:.0f} GiB kept free"


def titled_table(title: str, columns: Iterable[str]) -> Table:
    """An empty table whose first column holds names and whose others hold figures."""
    table = Table(title=escape(title), title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def changes_table(name: str, gpu: GpuSpec, changed: Iterable[tuple[dict[str, Any], DryRun]]) -> Table:
    """The changes to make, until training fits."""
    table = titled_table(f"what to change for {name}", ("with", "memory in training", "fits"))
    for changes, training in changed:
        typed = " ".join(f"--set {field}={str(value).lower()}" for field, value in changes.items())
        fits = gpu.fits(training.memory.peak)
        table.add_row(typed, gibibytes(training.memory.peak), "yes" if fits else "no")
        if fits:
            break
    return table


def encoding_advice(name: str, plan: Plan) -> str:
    """What to do if the encoders do not fit on a GPU."""
    return (
        f"encoding takes {gibibytes(plan.encoding.memory)}, which {name} does not have, and evaluation encodes its prompts with "
        "the same networks: use a larger GPU."
    )


def evaluating_advice(name: str, gpu: GpuSpec, plan: Plan, in_bf16: int) -> str:
    """What to do if making evaluation images does not fit on a GPU.

    Args:
        in_bf16: bytes that it takes with images in bf16.
    """
    takes = f"evaluating takes {gibibytes(plan.evaluating)}, which {name} does not have: "
    if plan.image_precision == "fp32" and gpu.fits(in_bf16):
        return f"{takes}--image precision=bf16, which is another protocol, takes {gibibytes(in_bf16)}."
    return f"{takes}use a larger GPU."


def about_placebo(name: str, algorithm: Algorithm) -> str:
    """What ``bench run --placebo`` adds to each run of an algorithm with a registered name."""
    if algorithm.placebo is None:
        return f"with --placebo: nothing is added, {name} has no placebo: {algorithm.no_placebo}"
    return f"with --placebo: training and evaluating cost twice as much, encoding and scoring the data does not; {algorithm.placebo}"


SMALL_NETWORKS = "A small network uses a smaller share of a GPU, since starting an operation takes longer than computing it: its hours are lower bounds."
"""What hours by MFU do not say."""


def about_cpus(card: ModelCard | None) -> str:
    """That there are no hours for CPUs, and for a model that is made for them, where to read how long runs take.

    Args:
        card: the model's card; None for a model that is not registered.
    """
    return f"There is no estimate for CPUs{'; ' if card and card.on_cpus else ''}{card.on_cpus if card else ''}."


def profile_table(title: str, profile: Profile) -> Table:
    """The measurements as a table."""
    table = Table(title=escape(title), title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("what", no_wrap=True)
    table.add_column("how much", justify="right", no_wrap=True)
    table.add_column("", style="dim")
    table.add_row(
        "pairs per second", f"{profile.pairs_per_second:.4g}", f"{profile.pairs} pairs timed on {profile.device}"
    )
    table.add_row("forwards per second", f"{profile.forwards_per_second:.4g}", "a backward counts as two")
    table.add_row("training, per pair", operations(profile.flops_per_pair), "")
    table.add_row(
        "ceiling", f"{operations(profile.ceiling)}/s", f"a large matrix product in {ARITHMETIC[profile.precision]}"
    )
    table.add_row(
        "share of the ceiling", f"{profile.share:.1%}", "reached by training; convolutions can exceed the ceiling"
    )
    table.add_row("peak memory", gibibytes(profile.peak_memory_bytes), profile.memory_of)
    if profile.resident_growth_bytes is not None:
        table.add_row("growth of the process", gibibytes(profile.resident_growth_bytes), "its resident set")
    for name, seconds in profile.phases.items():
        remark = "once for all algorithms" if name == "encode" else ""
        table.add_row(name, f"{1000 * seconds:,.4g} ms", f"per pair, {remark}" if remark else "per pair")
    return table


def count(number: int) -> str:
    """A number of parameters."""
    return f"{number / 1e6:,.4g} M" if number < 1e9 else f"{number / 1e9:,.4g} B"


def gibibytes(size: int) -> str:
    """Bytes of memory."""
    return f"{size / GIB:,.3g} GiB" if size >= GIB / 100 else f"{size / 2**20:,.3g} MiB"


def size_on_disk(size: int) -> str:
    """Bytes of files."""
    factor, unit = (1e9, "GB") if size >= 1e9 else (1e6, "MB")
    return f"{rounded(size / factor, 3)} {unit}"


def duration(seconds: float) -> str:
    """A duration in the largest unit of which it has at least two."""
    for factor, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * factor:
            return f"{rounded(seconds / factor, 3)} {unit}"
    return f"{rounded(seconds, 3)} seconds" if seconds >= 1 else "under 1 second"


def operations(flops: float) -> str:
    """Floating-point operations."""
    for factor, unit in ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP")):
        if flops >= factor:
            return f"{rounded(flops / factor, 4)} {unit}"
    return f"{rounded(flops / 1e6, 4)} MFLOP"


def rounded(value: float, digits: int) -> str:
    """A number to so many digits, or all digits of a larger whole number, never with an exponent for being large."""
    return f"{value:,.0f}" if value >= 10**digits - 0.5 else f"{value:,.{digits}g}"
