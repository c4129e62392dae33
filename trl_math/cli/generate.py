"""`trl-math generate`: problems become prompts, prompts become samples, and each sample a line in a folder."""

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trl_math.cli.request import read_request, set_environment
from trl_math.errors import UsageError
from trl_math.recipes import GENERATE_ALIASES, GenerateRequest, build_generate
from trl_math.share import Part, own_part, run_parts, take_own_devices
from trl_math.smoke import generate_smoke_values


HELP = """\
usage: trl-math generate --model MODEL --data DATA --num-samples N --output FOLDER [--setting value ...]
       trl-math generate --config RECIPE.yaml [--setting value ...] [--dry-run] [--smoke] [--debug]

Draw samples of problems with vLLM, transformers or OpenAI-compatible servers. The same command on the same output goes
on where it stopped, after a crash too; more --num-samples or more problems add to what is there.
Without --output the folder is runs/ and the recipe's name, or runs/samples.

which problems, and how they are sampled (with their defaults):
{generate}

which model, on which engine:
{engine}
"""


def run(argv: list[str]) -> int:
    """Run the command; return the exit status."""
    if {"-h", "--help"} & set(argv):
        print(_help())
        return 0
    part = own_part()
    take_own_devices(part)
    if not sys.stderr.isatty():
        import datasets

        datasets.disable_progress_bars()
    request = read_request(argv, "generate", generate_smoke_values, "output", GENERATE_ALIASES)
    set_environment(request)
    arguments = build_generate(request.values)
    check(arguments, part)
    if request.is_dry_run:
        from trl_math.generate_plan import report

        print(report(arguments, part))
        return 0
    arguments.engine.check_here()
    number = arguments.engine.data_parallel_size
    if number > 1 and not part.is_child:
        _, prompts, _ = prepare(arguments, part)  # says what is wrong once, before processes are started
        status = run_parts(["generate", *argv], number, arguments.engine.tensor_parallel_size)
        if status == 0:
            print(total(arguments, len(own_prompts(prompts, own_shard(arguments, part)))), flush=True)
            _export(arguments)
        return status
    return sample(arguments, part)


def check(arguments: GenerateRequest, part: Part) -> None:
    """Raise for settings that do not go together; needs neither model nor data."""
    generate, engine = arguments.generate, arguments.engine
    if not engine.model:
        raise UsageError("Which model? Set model (a hub name, a folder, or embedded:smollm2-135m-instruct).")
    if not generate.data:
        raise UsageError("Which problems? Set data (a hub name, a JSONL or Parquet file, or reasoning_gym:...).")
    if part.number > 1 and not part.is_child and (engine.data_parallel_size > 1 or engine.tensor_parallel_size > 1):
        raise UsageError(
            "Under a launcher every process has one engine on one GPU: leave data_parallel_size and "
            "tensor_parallel_size out, or start the command without a launcher."
        )
    if generate.export is not None:
        from trl_math.generation.export import check_export

        if not part.is_child:
            check_export(Path(generate.export), generate.output)
        if own_shard(arguments, part).number > 1 and not part.is_child:
            raise UsageError(
                "export is for whole folders: when all shards are done, the same command without shard writes it."
            )


def own_shard(arguments: GenerateRequest, part: Part) -> Any:
    """Return this process's shard: its part of the shard that was asked for.

    Which problems that shard has does not depend on how many processes share it: machines of one run may differ.
    """
    from trl_math.generation.store import Shard

    asked = Shard.parse(arguments.generate.shard)
    return Shard(asked.index + asked.number * part.index, asked.number * part.number)


def sample(arguments: GenerateRequest, part: Part) -> int:
    """Draw what is missing in this process's shard."""
    from trl_math.generation.arguments import sampler_hash
    from trl_math.generation.run import missing_samples
    from trl_math.generation.store import CompletionStore

    generate = arguments.generate
    checkpoint, prompts, settings = prepare(arguments, part)
    shard = own_shard(arguments, part)
    mine = own_prompts(prompts, shard)
    sampler = sampler_hash(settings)
    with CompletionStore(generate.output, settings, sampler=sampler, shard=shard) as store:
        say = _speaker(shard)
        if store.num_repaired:
            say(f"A torn last line of {store.num_repaired} bytes was cut off; its sample is drawn again.")
        missing = missing_samples(store, mine, generate.num_samples)
        if missing:
            _draw(arguments, checkpoint, store, missing, shard)
        others = set(store.problem_ids) - {prompt.problem_id for prompt in prompts}
        what = f"{generate.num_samples} samples of each of {len(mine):,} problems{'' if missing else ' already'}"
        # What other shards have written since this one was opened is not known here.
        num_all = len(store) if shard.number == 1 else 0
        more = _in_all(num_all, generate.num_samples * len(mine))
        say(f"{generate.output} holds {what}{more}{'.' if missing else ': nothing to do.'}")
        if others:
            say(f"It also holds samples of {len(others):,} problems that are not in these data.")
    if part.number == 1:
        _export(arguments)
    return 0


def total(arguments: GenerateRequest, num_problems: int) -> str:
    """Return what several processes together have done."""
    from trl_math.generation.sample_files import num_rows

    generate = arguments.generate
    asked = generate.num_samples * num_problems
    more = _in_all(num_rows(generate.output), asked)
    return f"{generate.output} holds {asked:,} samples of {num_problems:,} problems{more}."


def _in_all(number: int, asked: int) -> str:
    return f" ({number:,} in all)" if number > asked else ""


def own_prompts(prompts: Sequence[Any], shard: Any) -> list[Any]:
    """Return a shard's prompts: every so many in the order of ids, whatever order the data have here."""
    ids = sorted(prompt.problem_id for prompt in prompts)
    mine = set(ids[shard.index :: shard.number])
    return [prompt for prompt in prompts if prompt.problem_id in mine]


def prepare(arguments: GenerateRequest, part: Part) -> tuple[Any, list[Any], dict[str, Any]]:
    """Return checkpoint, prompts of all problems and the sampler's settings, or raise what is wrong with them."""
    from trl_math.generation.arguments import find_style, load_problems, make_prompts, sampler_settings
    from trl_math.generation.engines import find_checkpoint
    from trl_math.generation.run import check_ids

    generate, engine = arguments.generate, arguments.engine
    problems = load_problems(generate)
    style = find_style(generate, problems)
    checkpoint = find_checkpoint(engine)
    prompts = make_prompts(problems, style, checkpoint.tokenizer)
    check_ids(prompts)
    return checkpoint, prompts, sampler_settings(generate, engine, style, checkpoint)


def _draw(arguments: GenerateRequest, checkpoint: Any, store: Any, missing: Sequence[Any], shard: Any) -> None:
    from trl_math.generation.backend import request_seed
    from trl_math.generation.engines import make_backend, versions
    from trl_math.generation.progress import Progress
    from trl_math.generation.run import fill

    sampling = arguments.generate.sampling()
    say = _speaker(shard)
    say(f"{len(missing):,} samples to draw with {arguments.engine.engine}; {len(store):,} are there.")
    start = time.monotonic()
    # Another state for each session: the same one would draw after an interruption what it drew before it.
    seed = request_seed(sampling.seed, f"engine {shard}", store.session)
    backend = make_backend(arguments.engine, checkpoint, seed)
    try:
        say(f"The engine was ready after {time.monotonic() - start:.0f} s.")
        named = {"model": arguments.engine.model, "data": arguments.generate.data}
        store.record_session({**named, **backend.facts(), "versions": versions()})
        progress = Progress(len(missing), name=f"shard {shard}" if shard.number > 1 else "")
        try:
            outcome = fill(store, backend, missing, sampling, progress)
        finally:
            progress.close()
    finally:
        backend.close()
    for line in describe(outcome, progress, backend.context_length):
        say(line)


def _speaker(shard: Any) -> Callable[[str], None]:
    """Return what prints a line at once, with the shard's name if there are several."""
    name = f"shard {shard}: " if shard.number > 1 else ""
    return lambda text: print(f"{name}{text}", flush=True)


def describe(outcome: Any, progress: Any, context_length: int | None) -> list[str]:
    """Return what a session wrote, and what should make one think."""
    from trl_math.generation.progress import duration

    reasons = outcome.finish_reasons
    lines = [
        f"Wrote {outcome.num_written:,} samples, {outcome.num_tokens:,} tokens, in {duration(progress.seconds)} "
        f"({progress.rates()})."
    ]
    if cut := reasons["length"]:
        lines.append(
            f"{cut:,} of them ({cut / outcome.num_written:.0%}) ran out of tokens before they ended: if that is many, "
            "raise max_tokens."
        )
    if long := reasons["prompt_too_long"]:
        lines.append(
            f"{long:,} have prompts that do not fit the context of {context_length:,} tokens: they are empty, with "
            "finish_reason prompt_too_long."
        )
    return lines


def _export(arguments: GenerateRequest) -> None:
    if arguments.generate.export is None:
        return
    from trl_math.generation.export import export

    number = export(arguments.generate.output, arguments.generate.export)
    print(f"Wrote all {number:,} samples to {arguments.generate.export}.")


def _help() -> str:
    from trl_math.generation.arguments import GenerateArguments
    from trl_math.generation.engines import EngineArguments

    return HELP.format(generate=_fields(GenerateArguments), engine=_fields(EngineArguments)).rstrip()


def _fields(kind: type) -> str:
    lines = []
    for field in dataclasses.fields(kind):
        default = "" if field.default is None else f" [{field.default}]"
        lines.append(f"  --{field.name}{default}: {field.metadata['help']}")
    return "\n".join(lines)
