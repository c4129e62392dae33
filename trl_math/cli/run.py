"""`trl-math run`: an experiment of stages, in rounds if it says so; what is finished is not done again."""

from pathlib import Path

from trl_math.cli.request import quiet_bars, read_request, say, set_environment, settings_help
from trl_math.errors import UsageError
from trl_math.recipes import GENERATE_ALIASES
from trl_math.run_folder import without_secrets
from trl_math.share import own_part


HELP = """\
usage: trl-math run --config RECIPE.yaml [--setting value ...] [--STAGE.SETTING value ...] [--dry-run] [--smoke]

Run the stages of a recipe one after the other, each in a process of its own with files between: {commands}.
The same command goes on where it stopped, after a crash too; a stage is done again only if its settings or what it
reads have changed, beside what is there. --dpo.learning_rate 1e-6 changes a setting of the stage dpo.

settings (with their defaults); the recipes under recipes/on-policy-dpo and docs/rounds.md show stages:
{settings}
  --finally: Stages that run once, after all arms and seeds.
"""


def run(argv: list[str]) -> int:
    """Run the command; return the exit status."""
    from trl_math.pipeline.runner import BECOME, become_runner, run_plan

    if argv[:1] == [BECOME]:
        return run_plan(Path(argv[1]), int(argv[2]), say)
    if {"-h", "--help"} & set(argv):
        print(_help())
        return 0
    from trl_math.pipeline.recipe import read_experiment, run_smoke_values

    if own_part().number > 1:
        raise UsageError("trl-math run starts the processes of its stages itself: start it without a launcher.")
    request = read_request(argv, "run", run_smoke_values, "output", GENERATE_ALIASES)
    set_environment(request)
    quiet_bars()
    # Only now: packages read the environment when they are imported.
    from trl_math.pipeline import describe
    from trl_math.pipeline.plan import make_plan
    from trl_math.pipeline.records import check_folder

    experiment = read_experiment(request.values)
    plan = make_plan(experiment)
    check_folder(plan.folder)
    jobs = describe.jobs_of(plan)
    if request.is_dry_run:
        print(describe.report(experiment, plan, jobs))
        return 0
    for line in describe.overview(experiment, plan, jobs):
        say(line)
    if found := describe.check(plan, jobs, experiment.study):
        raise UsageError(f"{found[0]}{f' ({len(found) - 1} more: --dry-run lists them.)' if found[1:] else ''}")
    become_runner(plan.folder, without_secrets(request.values), jobs)


def _help() -> str:
    from trl_math.pipeline.commands import COMMANDS
    from trl_math.pipeline.recipe import RunArguments

    return HELP.format(commands=", ".join(COMMANDS), settings=settings_help(RunArguments)).rstrip()
