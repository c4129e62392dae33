"""Every recipe file is one that TRL, accelerate and our loader take as it is, and says what it does truthfully."""

import json
import re
import warnings
from pathlib import Path

import pytest
import torch
import yaml

from trl_math.cli.collect_settings import build as build_collect
from trl_math.cli.difficulty_settings import build as build_difficulty
from trl_math.evaluation.benchmarks import BENCHMARKS
from trl_math.launch import launch_plan
from trl_math.pipeline.plan import Plan, make_plan
from trl_math.pipeline.recipe import read_experiment
from trl_math.plan import effective_batch, estimate_memory, num_update_steps, plan_memory
from trl_math.recipes import (
    all_recipes,
    build_evaluate,
    build_generate,
    build_sft,
    find_recipe,
    read_recipe,
    recipe_name,
)


ROOT = Path(__file__).parent.parent / "recipes"
LAUNCHES = sorted((ROOT / "accelerate").glob("*.yaml"))
DCO = sorted((ROOT / "dco").glob("llama3-8b-math-direct-*.yaml")) + sorted((ROOT / "dco").glob("qwen*.yaml"))
DCO_COT = sorted((ROOT / "dco").glob("llama3-8b-math-cot-*.yaml"))
SDAT = sorted((ROOT / "sdat").glob("llemma-7b-b*.yaml"))
TRAINING = [path for path in all_recipes() if read_recipe(path)["command"] == "sft"]
STAGED = [path for path in all_recipes() if read_recipe(path)["command"] == "run"]
# The published pairs of b and w (its table has the pair 1, 1 twice).
SDAT_GRID = [(0, 1), (0, 2), (1, 0.5), (1, 1), (1, 2), (2, 0.5), (2, 1), (2, 2), (3, 0.25), (3, 0.5), (3, 1)]

LLAMA_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}


def stem(path: Path) -> str:
    return path.stem


def build(values: dict):
    """The typed arguments; where there is no GPU, the CPU stands in for it."""
    return build_sft({**values, "use_cpu": not torch.cuda.is_available()})


@pytest.fixture
def launch(monkeypatch):
    """`accelerate launch` up to the point at which it would start processes; returns its final arguments."""
    from accelerate.commands import launch as launcher

    started = []
    for kind in ("simple_launcher", "multi_gpu_launcher", "deepspeed_launcher"):
        monkeypatch.setattr(launcher, kind, started.append)

    def run(name: str, *flags: str):
        words = ["--config_file", str(ROOT / "accelerate" / f"{name}.yaml"), *flags, "train.py"]
        launcher.launch_command(launcher.launch_command_parser().parse_args(words))
        return started.pop()

    return run


def test_launch_files_are_the_promised_ones():
    names = ["cpu", "ddp", "fsdp2", "single_gpu", "zero2", "zero3", "zero3_multinode"]
    assert [path.stem for path in LAUNCHES] == names


@pytest.mark.parametrize("path", LAUNCHES, ids=stem)
def test_accelerate_loads_every_launch_file(path):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    plan = launch_plan(path.stem)
    assert (config.num_processes, config.num_machines) == (plan.num_processes, plan.num_machines)
    assert config.use_cpu == plan.uses_cpu == (path.stem == "cpu")
    assert config.mixed_precision == ("no" if path.stem == "cpu" else "bf16")
    assert config.distributed_type.value == plan.kind
    assert path.read_text().startswith("# "), "a launch file says what it is for"


@pytest.mark.parametrize("path", LAUNCHES, ids=stem)
def test_accelerate_launch_takes_every_launch_file(path, launch):
    arguments = launch(path.stem)
    plan = launch_plan(path.stem)
    assert arguments.num_processes == plan.num_processes
    assert arguments.use_deepspeed == (plan.kind == "DEEPSPEED")
    assert arguments.use_fsdp == (plan.kind == "FSDP")
    assert arguments.multi_gpu == (plan.kind == "MULTI_GPU")


@pytest.mark.parametrize("name", ["zero2", "zero3", "zero3_multinode"])
def test_deepspeed_launches_follow_the_recipe_and_save_whole_models(name, launch, monkeypatch):
    from accelerate.utils.launch import prepare_deepspeed_cmd_env

    monkeypatch.setattr("accelerate.utils.launch.is_port_in_use", lambda port: False)
    arguments = launch(name)
    command, environment = prepare_deepspeed_cmd_env(arguments)
    assert command is None, "started by torchrun, without ssh and host files"
    assert environment["ACCELERATE_GRADIENT_ACCUMULATION_STEPS"] == "auto"
    assert environment["ACCELERATE_GRADIENT_CLIPPING"] == "auto"
    assert environment["ACCELERATE_MIXED_PRECISION"] == "bf16"
    assert environment["ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL"] == "true"
    assert environment["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == ("2" if name == "zero2" else "3")
    assert environment["ACCELERATE_DEEPSPEED_ZERO3_INIT"] == ("false" if name == "zero2" else "true")
    if name == "zero3_multinode":
        assert (arguments.nnodes, arguments.nproc_per_node, arguments.node_rank) == ("2", "8", 0)


def test_what_differs_between_machines_can_be_given_on_the_command_line(launch):
    arguments = launch("zero3_multinode", "--machine_rank", "1", "--main_process_ip", "node0")
    assert (arguments.machine_rank, arguments.main_process_ip) == (1, "node0")
    assert launch("zero2", "--num_processes", "2").num_processes == 2


def test_fsdp_saves_whole_models_and_leaves_checkpointing_to_the_trainer():
    config = launch_plan("fsdp2").settings["fsdp_config"]
    assert config["fsdp_version"] == 2
    assert config["fsdp_state_dict_type"] == "FULL_STATE_DICT"
    assert config["fsdp_activation_checkpointing"] is False


@pytest.mark.parametrize("path", all_recipes(), ids=recipe_name)
def test_every_recipe_is_built_by_the_strict_loader(path):
    values = read_recipe(path)
    assert {"command", "description"} <= set(values)
    assert find_recipe(recipe_name(path)) == path
    if values["command"] == "evaluate":
        arguments = build_evaluate(values)
        assert arguments.evaluate.output == values["output"]
        assert all(name.partition("=")[0] in BENCHMARKS for name in arguments.evaluate.benchmarks)
        return
    if values["command"] == "difficulty":
        assert build_difficulty(values).generate.output == values["output"]
    if values["command"] == "collect":
        assert build_collect(values).generate.output == values["output"]
    if values["command"] == "generate":
        arguments = build_generate(values)
        assert arguments.generate.output == values["output"]
    if values["command"] == "sft":
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # TRL's own default is the old name of activation checkpointing, whatever a recipe says or does not say.
            warnings.filterwarnings("ignore", message="`gradient_checkpointing", category=FutureWarning)
            arguments = build(values)
        assert arguments.training.output_dir == values["output_dir"]
        launch_plan(arguments.header.accelerate_config)


@pytest.mark.parametrize("path", TRAINING, ids=recipe_name)
def test_recipes_state_their_effective_batch_and_their_folder(path):
    values, text = read_recipe(path), path.read_text()
    training = build(values).training
    assert training.output_dir == f"runs/{path.parent.name}/{path.stem}"
    rows, accumulation = training.per_device_train_batch_size, training.gradient_accumulation_steps
    processes = launch_plan(values["accelerate_config"], values.get("num_processes")).num_processes
    stated = re.search(r"effective batch (\d+) = (\d+) rows? x (\d+) micro-batch(?:es)? x (\d+) GPUs", text)
    batch = effective_batch(rows, accumulation, processes)
    assert (batch, rows, accumulation, processes) == tuple(map(int, stated.groups()))
    assert batch == {"dco": 128, "sdat": 128, "dart": 64}[path.parent.name]


@pytest.mark.parametrize("path", DCO, ids=stem)
def test_dco_recipes_say_what_they_do(path):
    training = build(read_recipe(path)).training

    # The name is the objective.
    number = int(re.search(r"(?:-n|neff)(\d+)", path.stem)[1]) if "-ce" not in path.stem else 1
    assert training.objective == ("cross_entropy" if number == 1 else "coverage")
    assert number in (1, training.num_attempts)
    assert training.refills == path.stem.endswith("-repo")
    assert training.coverage_reduction == ("mean" if path.stem.endswith("-repo") else "sum")
    assert not training.save_only_model, "a run that stops can go on"


@pytest.mark.parametrize("path", DCO, ids=stem)
def test_dco_prompt_styles_exist_and_their_columns_are_stated(path):
    from trl_math.data.prompts import PROMPT_STYLES

    values = read_recipe(path)
    style = PROMPT_STYLES[values["prompt_style"]]
    if values["prompt_style"] == "tactic":
        assert all(f'"{column}"' in path.read_text() for column in style.columns)


def test_dco_runs_of_one_experiment_differ_in_the_objective_only():
    own = {"description", "output_dir", "objective", "num_attempts", "coverage_level", "coverage_reduction"}
    for start in ("llama3", "qwen2.5"):
        shared = [
            {key: value for key, value in read_recipe(path).items() if key not in own}
            for path in DCO
            if path.stem.startswith(start) and not path.stem.endswith("-repo")
        ]
        assert len(shared) == 5
        assert all(values == shared[0] for values in shared)


def test_dco_chains_of_thought_differ_in_the_objective_only():
    gate = {"coverage_from", "max_pass_rate", "unscreened_steps"}
    own = gate | {"description", "output_dir", "num_attempts", "accelerate_config"}
    plain = {
        path.stem: {
            key: value
            for key, value in read_recipe(path).items()
            if key not in own and not key.startswith("screening")
        }
        for path in DCO_COT
    }
    assert len(plain) == 5 and all(values == plain["llama3-8b-math-cot-ce"] for values in plain.values())
    direct = read_recipe("dco/llama3-8b-math-direct-n256-repo")
    shared = {"learning_rate", "lr_scheduler_type", "warmup_steps", "seed", "max_length", "dataset_name"}
    assert all(plain["llama3-8b-math-cot-ce"][key] == direct[key] for key in shared)


def test_dco_chains_of_thought_are_the_published_command():
    training = build(read_recipe("dco/llama3-8b-math-cot-gate")).training
    assert (training.num_attempts, training.max_pass_rate, training.unscreened_steps) == (1, 0.1, 20)
    assert (training.screening, training.screening_samples, training.screening_max_tokens) == ("live", 64, 1024)
    assert (training.num_train_epochs, training.seed, training.learning_rate) == (6, 10, 2e-5)
    soft = build(read_recipe("dco/llama3-8b-math-cot-n64")).training
    assert (soft.num_attempts, soft.coverage_from, soft.screening_rule) == (64, "pass_rate", "fixed")
    baseline = build(read_recipe("dco/llama3-8b-math-cot-ce")).training
    assert (baseline.objective, baseline.num_attempts, baseline.coverage_reduction) == ("coverage", 1, "mean")


@pytest.mark.parametrize("name", ["llama3-8b-math-cot-gate", "llama3-8b-math-cot-n64"])
def test_zero3_recipes_are_those_of_zero2(name):
    two, three = (read_recipe(f"dco/{name}{end}") for end in ("", "-zero3"))
    differing = {key for key in two | three if two.get(key) != three.get(key)}
    assert differing == {"accelerate_config", "description", "output_dir"}
    assert (two["accelerate_config"], three["accelerate_config"]) == ("zero2", "zero3")


def test_llama_recipes_fit_on_the_stated_gpus():
    beside = read_recipe("dco/llama3-8b-math-cot-gate")
    trainer = plan_memory(beside, LLAMA_8B, launch_plan(beside["accelerate_config"])).total
    assert trainer + 80e9 * beside["screening_gpu_memory_utilization"] < 0.9 * 80e9, "an engine beside the trainer"
    dart = read_recipe("dart/llama3-8b-uniform")
    assert plan_memory(dart, LLAMA_8B, launch_plan(dart["accelerate_config"])).total < 0.9 * 80e9
    values = read_recipe("dco/llama3-8b-math-direct-n256")
    estimate = plan_memory(values, LLAMA_8B, launch_plan("zero2"))
    assert 40e9 < estimate.total < 0.9 * 80e9
    assert estimate.total < estimate_memory(LLAMA_8B, dtype="bfloat16", num_processes=8, max_length=8192).total


def test_readme_has_every_recipe_and_its_steps():
    readme = (ROOT / "dco" / "README.md").read_text()
    for path in [*DCO, *DCO_COT]:
        assert f"`{path.stem}`" in readme
    named = set(re.findall(r"`((?:llama3|qwen2\.5)[\w.-]+)`", readme))
    assert named == {path.stem for path in [*DCO, *DCO_COT]}
    assert num_update_steps(12_000, 4, 4, 8) == 94 and "94 optimiser steps an epoch, 376 in all" in readme


def test_sdat_recipes_differ_in_difficulty_only():
    own = {"description", "output_dir", "difficulty_schedule_params", "difficulty_as", "difficulty_rounding"}
    own |= {"matched_control", "num_train_epochs", "max_steps"}
    shared = [{key: value for key, value in read_recipe(path).items() if key not in own} for path in SDAT]
    assert len(shared) == 6 and all(values == shared[0] for values in shared)


def test_the_sdat_grid_is_the_published_one():
    grid, readme = read_recipe("sdat/llemma-7b-grid"), (ROOT / "sdat" / "README.md").read_text()
    changes = [arm["sft.difficulty_schedule_params"] for arm in grid["arms"].values()]
    assert [(one["base"], one["factor"]) for one in changes] == SDAT_GRID
    assert list(grid["arms"]) == [f"b{base}-w{factor}" for base, factor in SDAT_GRID]
    assert {one["rule"] for one in changes} == {"released"}, "which the published runs used"
    table = re.findall(r"^\| (\d) \| ([\d.]+)(?: \(a second row\))? \| [\d,]+ \|", readme, re.MULTILINE)
    assert {(int(b), float(w)) for b, w in table} == set(SDAT_GRID) and len(table) == len(SDAT_GRID) + 1
    # An arm of the grid is the recipe of that name.
    alone = read_recipe("sdat/llemma-7b-b1-w1")
    arm = {**grid["sft"], "difficulty_schedule_params": grid["arms"]["b1-w1"]["sft.difficulty_schedule_params"]}
    of_place = {"command", "description", "model_name_or_path", "output_dir", "seed", "save_strategy"}
    assert {key: value for key, value in alone.items() if key not in of_place} == {
        key: value for key, value in arm.items() if not key.startswith("save_")
    }
    assert alone["seed"] in grid["seeds"] and alone["model_name_or_path"] == grid["model"]


@pytest.mark.parametrize("student", ["llama3-8b", "deepseek-math-7b"])
def test_dart_students_are_trained_alike(student):
    staged_form = read_recipe(f"dart/{student}")
    for arm in ("uniform", "prop2diff"):
        alone, of_stage = read_recipe(f"dart/{student}-{arm}"), staged_form["sft"]
        assert {key: alone[key] for key in of_stage} == of_stage
        assert alone["model_name_or_path"] == staged_form["model"]
        collected = read_recipe(f"dart/collect-{arm}")
        stages = [one["collect"] for one in staged_form["before"] if "collect" in one and isinstance(one, dict)]
        stage = next(stage for stage in stages if stage["name"] == arm)
        assert (stage["targets"], stage["num_correct"]) == (collected["targets"], collected["num_correct"])
        assert {key: collected[key] for key in staged_form["collect"]} == staged_form["collect"]
    rates = read_recipe("dart/pass-rates")
    assert {key: rates[key] for key in staged_form["difficulty"]} == staged_form["difficulty"]


@pytest.fixture
def own_problems(tmp_path, monkeypatch):
    """The files that READMEs of recipes make, where the recipes look for them."""
    monkeypatch.chdir(tmp_path)
    made = {
        "aimo": ("math-test-level5-integers", "math-train"),
        "dart": ("train",),
        "sdat": ("numglue", "simuleq", "deepmind"),
    }
    for folder, name in [(folder, name) for folder, names in made.items() for name in names]:
        file = Path("data", folder, f"{name}.jsonl")
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = [{"problem_id": f"{name}/{i}", "problem": f"{i}+1=", "answer": str(i + 1)} for i in range(3)]
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def staged(name: str | Path) -> Plan:
    return make_plan(read_experiment(read_recipe(name)))


@pytest.mark.parametrize("path", STAGED, ids=recipe_name)
def test_staged_recipes_are_planned_whole(path, own_problems):
    values, stages = read_recipe(path), staged(path).stages
    assert Path(values["output"]).parts[:2] == ("runs", path.parent.name)
    trained = [stage for stage in stages if stage.command in ("dpo", "sft")]
    assert trained and "evaluate" in {stage.command for stage in stages}
    for stage in trained:
        launch_plan(stage.given.get("accelerate_config"))
        if stage.command == "dpo":
            assert stage.sources["dataset_name"], "it trains on pairs that stages of the same recipe made"
    stated = re.findall(
        r"effective batch (\d+) = (\d+) (?:pair|row)s? x (\d+) micro-batch(?:es)? x (\d+) GPUs", path.read_text()
    )
    for batch, *factors in stated:
        assert int(batch) == effective_batch(*map(int, factors))
        assert {stage.given["effective_batch"] for stage in trained} == {int(batch)}
    assert stated or values["model"].startswith("embedded:"), "a recipe for GPUs says its effective batch"


@pytest.mark.parametrize("path", all_recipes(), ids=recipe_name)
def test_readmes_name_every_recipe(path):
    readme = path.parent / "README.md"
    if readme.exists():
        assert re.search(rf"(`|{path.parent.name}/){re.escape(path.stem)}(`|\s)", readme.read_text())


@pytest.mark.parametrize("path", [path for path in all_recipes() if path.stem.endswith("-laptop")], ids=recipe_name)
def test_laptop_recipes_need_no_network(path):
    values = read_recipe(path)
    sources = {values["model"], values.get("data"), values.get("sft", {}).get("dataset_name")} - {None}
    assert all(source.startswith(("embedded:", "reasoning_gym:")) for source in sources)
    asked = values.get("benchmarks") or values.get("evaluate", {}).get("benchmarks") or []
    assert all(BENCHMARKS[name].make is not None for name in asked), "an embedded set"
    if values["command"] == "run":
        assert values["sft"]["use_cpu"] and not values["sft"]["bf16"]


def test_the_aimo_data_sets_are_made_of_the_same_samples(own_problems):
    plans = [{stage.name: stage for stage in staged(f"aimo-dpo/{name}").stages} for name in ("v0", "v1", "v2")]
    for name in ("untrained", "generate", "grade"):
        assert len({plan[name].key for plan in plans}) == 1, name
    assert len({plan["pairs"].key for plan in plans}) == 3


def test_the_repaired_aimo_experiment_asks_test_problems_in_evaluations_only(own_problems):
    stages = staged("aimo-dpo/repaired").stages
    reads_test = {stage.command for stage in stages if "math-test" in json.dumps(stage.given)}
    assert reads_test == {"evaluate"}
    windows = [stage.given.get("skip_problems", 0) for stage in stages if stage.command == "generate"]
    assert windows == [0, 2400, 4800], "each round has its own problems"


def test_the_aimo_control_differs_in_prompts_only(own_problems):
    stages = {stage.name: stage for stage in staged("aimo-dpo/mismatch").stages}
    matched, mismatched = (stages[f"dpo_{name}"].given for name in ("matched", "mismatched"))
    assert matched.keys() == mismatched.keys()
    assert {name for name in matched if matched[name] != mismatched[name]} <= {"dataset_name", "output_dir"}
    pairs, control = (stages[name].given for name in ("matched", "mismatched"))
    own = {"mixed_templates", "mismatch_prompts", "max_pairs_per_problem", "output"}
    assert {name for name in pairs | control if pairs.get(name) != control.get(name)} <= own
    assert 3 * pairs["max_pairs_per_problem"] == control["max_pairs_per_problem"], "a prompt, and three of them"
    assert control["mismatch_prompts"] and "mismatch_prompts" not in pairs


@pytest.mark.parametrize("path", [*LAUNCHES, *all_recipes()], ids=stem)
def test_files_are_plain_short_yaml(path):
    text = path.read_text()
    assert isinstance(yaml.safe_load(text), dict)
    assert max(map(len, text.splitlines())) <= 119
    assert text.endswith("\n") and not text.endswith("\n\n")
