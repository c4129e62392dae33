"""`trl-math pairs`: graded samples become preference pairs, with what there is to know about them."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trl_math.cli.pair_sources import (
    SAMPLING,
    Sampler,
    answers_hash,
    answers_of,
    decoder,
    find_sources,
    open_sampler_tokenizer,
    prompt_ids,
    samplers_of,
    template_hash,
    tokenizer_hash,
)
from trl_math.cli.request import Request, read_request, say, set_environment, settings_help, split_words
from trl_math.errors import DataError, UsageError
from trl_math.recipes import Header, split_values


if TYPE_CHECKING:
    from trl_math.data.graded_samples import GradedSamples
    from trl_math.data.pair_settings import PairSettings
    from trl_math.data.pair_statistics import PairStatistics
    from trl_math.data.pairs import PairPlan


HELP = """\
usage: trl-math pairs SAMPLES [SAMPLES ...] --output FOLDER [--setting value ...]
       trl-math pairs --config RECIPE.yaml [--setting value ...] [--dry-run]

Make preference pairs of graded samples: a right one and a wrong one that answer the same prompt. SAMPLES are folders
of `trl-math generate` that `trl-math grade` has graded, folders of `trl-math evaluate`, or JSONL files of graded
samples. FOLDER gets pairs.jsonl, eval.jsonl if problems are held out, pairs.json (what they are made of) and a figure.

which samples:
{source}

which pairs (with their defaults):
{pairs}
"""


@dataclasses.dataclass
class SourceArguments:
    """Where pairs come from, and where they go."""

    samples: list[str] | None = dataclasses.field(
        default=None, metadata={"help": "Folders or files of graded samples; on the command line they stand in front."}
    )
    output: str | None = dataclasses.field(default=None, metadata={"help": "Folder of the pairs."})
    tokenizer: str | None = dataclasses.field(
        default=None, metadata={"help": "That of the sampler, if it is not where the samples say."}
    )
    mixed_templates: bool = dataclasses.field(
        default=False, metadata={"help": "Samples may be of several prompt styles; they are paired within each."}
    )


class Inputs(NamedTuple):
    """What pairs are made of."""

    samples: "GradedSamples"
    samplers: list[Sampler]
    tokenizer: Any
    made_of: dict[str, Any]  # what decides on the pairs: settings, samples, tokenizer
    notes: list[str]


def run(argv: list[str]) -> int:
    """Run the command; return the exit status."""
    if {"-h", "--help"} & set(argv):
        from trl_math.data.pair_settings import PairSettings

        print(HELP.format(source=settings_help(SourceArguments), pairs=settings_help(PairSettings)).rstrip())
        return 0
    words, flags = split_words(argv)
    request = read_request(flags, "pairs", _no_smoke, "output", {"output_dir": "output"})
    set_environment(request)
    source, settings = arguments(request, words)
    return make(source, settings, is_dry_run=request.is_dry_run)


def arguments(request: Request, words: Sequence[str] = ()) -> tuple[SourceArguments, "PairSettings"]:
    """Return the settings in typed form; raise for what has no place."""
    from trl_math.data.pair_settings import PairSettings

    if words:
        request.values["samples"] = list(words)
    consumers = {"header": Header, "source": SourceArguments, "pairs": PairSettings}
    parts = split_values(request.values, consumers)
    source = SourceArguments(**parts["source"])
    if not source.samples:
        raise UsageError("Which samples? trl-math pairs SAMPLES [SAMPLES ...] --output FOLDER, SAMPLES being graded.")
    return source, PairSettings(**parts["pairs"])


def make(source: SourceArguments, settings: "PairSettings", *, is_dry_run: bool = False) -> int:
    """Make the pairs that the folder does not have yet, and say how they are made up."""
    from trl_math.data.pair_folder import hold_pair_folder, is_finished, read_pairs_manifest, write_pair_folder
    from trl_math.data.pairs import plan_pairs

    assert source.output is not None
    folder = Path(source.output)
    inputs = gather(source, settings)
    if is_dry_run:
        return _look(inputs, settings, folder)
    with hold_pair_folder(folder):
        if is_finished(folder, inputs.made_of):
            manifest = read_pairs_manifest(folder)
            say(f"{folder} holds these {manifest['num_pairs']:,} pairs already: nothing to do.")
            return 0
        for note in inputs.notes:
            say(note)
        plan = plan_pairs(inputs.samples, settings, decode=inputs.tokenizer and decoder(inputs.tokenizer))
        _check_some(plan, inputs)
        facts = {**inputs.made_of, **_facts(inputs)}
        manifest = write_pair_folder(folder, inputs.samples, plan, facts, partial(_draw, plan.statistics))
    _describe(plan, manifest, folder)
    return 0


def gather(source: SourceArguments, settings: "PairSettings") -> Inputs:
    """Return the samples with the tokens of their prompts, or raise if they do not belong together."""
    from trl_math.data.graded_samples import GradedSamples

    sources = find_sources(source.samples or [])
    samples = GradedSamples([one.file for one in sources])
    if not samples.num_samples:
        raise DataError(f"There are no graded samples in {' and '.join(source.samples or [])}.")
    mixed = source.mixed_templates or settings.mismatch_prompts
    samplers = samplers_of(samples, sources, mixed_templates=mixed)
    tokenizer = open_sampler_tokenizer(samples, samplers, source.tokenizer)
    if tokenizer is not None:
        samples.prompt_ids = prompt_ids(samples, tokenizer)
    samples.answers = answers_of(sources)
    is_chat = any(not isinstance(prompt, str) for prompt in samples.prompts.values())
    made_of = {
        "settings": {**dataclasses.asdict(settings), "mixed_templates": source.mixed_templates},
        "samples": {"num": samples.num_samples, "digest": samples.digest},
        "tokenizer": tokenizer and tokenizer_hash(tokenizer),
        "chat_template": template_hash(tokenizer) if tokenizer is not None and is_chat else None,
        "answers": answers_hash(samples.answers),
    }
    notes = [
        f"{one.num_sampled - number:,} of the {one.num_sampled:,} samples in {one.file.parent} are not graded, and "
        "were left out: the same `trl-math grade` command grades them."
        for one, number in zip(sources, samples.num_rows, strict=True)
        if one.num_sampled is not None and one.num_sampled > number
    ]
    return Inputs(samples, samplers, tokenizer, made_of, [*notes, *_notes(samples, samplers, tokenizer, settings)])


def _notes(
    samples: "GradedSamples", samplers: Sequence[Sampler], tokenizer: Any, settings: "PairSettings"
) -> list[str]:
    """Return what people should know of these samples."""
    notes = []
    if settings.mismatch_prompts:
        notes.append(
            "WARNING: mismatch_prompts puts responses behind prompts that they do not answer. These pairs are a "
            "negative control: train nothing else on them."
        )
    varied = {key: list(dict.fromkeys(str(one.settings.get(key)) for one in samplers)) for key in sorted(SAMPLING)}
    if varied := {key: values for key, values in varied.items() if len(values) > 1}:
        said = ", ".join(f"{key} {' and '.join(values)}" for key, values in varied.items())
        notes.append(f"Samples of one prompt are paired whichever way they were drawn: {said}.")
    notes += [f"The last line of {file} is half a row, and was left out." for file in samples.cut_files]
    if samples.num_without_end:
        notes.append(f"{samples.num_without_end:,} samples do not say how they ended, and count as finished.")
    if tokenizer is None:
        why = (
            f"{samples.num_without_ids:,} samples have no token ids"
            if samples.num_without_ids
            else ("it is not known what drew these samples: tokenizer would tell")
        )
        notes.append(f"Pairs are texts, which training turns into tokens anew ({why}).")
        if settings.unfinished == "rejected":
            notes.append(
                "Unfinished samples serve as rejected, and training puts an end token behind texts: they will look "
                "finished."
            )
    return notes


def _check_some(plan: "PairPlan", inputs: Inputs) -> None:
    """Raise if there is no pair, with the reasons."""
    from trl_math.data.pair_statistics import describe_pass_rates

    statistics, samples = plan.statistics, inputs.samples
    if statistics.num_pairs:
        return
    if not samples.num_judged:
        raise DataError(
            f"No pair can be built: none of the {samples.num_samples:,} samples has a verdict, since the gold answers "
            "of their problems are missing or cannot be read. Grade with problems that have answers."
        )
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in statistics.dropped.items())
    hint = ""
    if plan.settings.prefix_to_prompt is not None and any("prefix" in reason for reason in statistics.dropped):
        begins = f"{samples.first_text or '':.40}"
        hint = f" prefix_to_prompt is {plan.settings.prefix_to_prompt!r}, and a sample begins {begins!r}."
    raise DataError(
        f"No pair can be built of {samples.num_samples:,} samples of {samples.num_problems:,} problems. Pass rates: "
        f"{describe_pass_rates(statistics.pass_rates)}. Left out: {reasons or 'nothing'}.{hint}"
    )


def _facts(inputs: Inputs) -> dict[str, Any]:
    """Return what is written down beside the settings."""
    from importlib.metadata import version

    first = inputs.samplers[0] if inputs.samplers else None
    return {
        "command": "pairs",
        "sampler": "|".join(sorted(filter(None, inputs.samples.samplers))) or None,
        "model": first and first.model,
        "model_identity": first and first.settings.get("model"),
        "data": sorted({one.data for one in inputs.samplers if one.data}),
        "samplers": [one.settings for one in inputs.samplers],
        "versions": {"trl-math": version("trl-math")},
    }


def _draw(statistics: "PairStatistics", path: Path) -> None:
    """Draw the figure, where there is what draws."""
    from trl_math.optional import is_installed

    if is_installed("matplotlib"):
        from trl_math.reporting.pairs_figure import draw

        draw(statistics, path)
    else:
        say("There is no figure, since matplotlib is not installed: pip install 'trl-math[report]'.")


def _describe(plan: "PairPlan", manifest: dict[str, Any], folder: Path) -> None:
    for line in plan.statistics.lines():
        say(line)
    for warning in plan.statistics.warnings:
        say(f"WARNING: {warning}")
    held_out = f", and holds out {manifest['num_eval_pairs']:,} of {manifest['num_eval_problems']:,}"
    say(
        f"{folder} holds {manifest['num_pairs']:,} pairs of {manifest['num_problems']:,} problems"
        f"{held_out if manifest['num_eval_pairs'] else ''}."
    )


def _look(inputs: Inputs, settings: "PairSettings", folder: Path) -> int:
    """Print what would be made."""
    from trl_math.data.pair_folder import is_finished
    from trl_math.data.pairs import plan_pairs
    from trl_math.generate_plan import sections, settings_lines

    is_done = is_finished(folder, inputs.made_of)
    plan = plan_pairs(inputs.samples, settings, decode=inputs.tokenizer and decoder(inputs.tokenizer))
    _check_some(plan, inputs)
    neutral = {field.name: field.default for field in dataclasses.fields(settings) if field.name != "rule"}
    given = {key: value for key, value in inputs.made_of["settings"].items() if value != neutral.get(key, False)}
    samples = inputs.samples
    sampled = [f"{samples.num_samples:,} graded samples of {samples.num_problems:,} problems", *inputs.notes]
    table = [*plan.statistics.lines(), *(f"WARNING: {warning}" for warning in plan.statistics.warnings)]
    files = [f"{folder} {'has these pairs already' if is_done else 'would be written'}"]
    print(
        sections(
            {
                "settings (others are at their defaults)": settings_lines(given),
                "samples": sampled,
                "pairs": table,
                "files": files,
            }
        )
    )
    return 0


def _no_smoke(values: dict[str, Any], name: str) -> dict[str, Any]:
    raise UsageError("pairs has no smoke form, since it runs no model: leave smoke out, or look with --dry-run.")
