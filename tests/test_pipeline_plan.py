"""A recipe of stages as a plan: what is filled in, what a key depends on, and what is refused before anything runs."""

import json
from pathlib import Path

import pytest

from trl_math.errors import UsageError
from trl_math.models import save_tiny
from trl_math.pipeline.commands import COMMANDS
from trl_math.pipeline.plan import flags_of, make_plan
from trl_math.pipeline.recipe import read_experiment
from trl_math.recipes import build_generate, parse_flags


GENERATE = {"backend": "scripted", "num_samples": 4, "max_tokens": 64}
TRAIN = {"use_cpu": True, "bf16": False, "dataset_name": "problems.jsonl", "prompt_style": "plain"}
EVALUATE = {"backend": "scripted", "benchmarks": ["problems.jsonl"], "num_samples": 2}


@pytest.fixture(autouse=True)
def _problems(_working_folder):
    write_problems("problems.jsonl", 10)


def write_problems(name, number, start=0):
    rows = [{"problem": f"What is {i} mod 10?", "answer": str(i % 10)} for i in range(start, start + number)]
    Path(name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def recipe(**changes):
    """Two rounds of sampling, grading and training, with an evaluation before and after."""
    values = {
        "command": "run",
        "model": "embedded:tiny",
        "data": "problems.jsonl",
        "output": "out",
        "rounds": 2,
        "before": [{"evaluate": {"name": "base", **EVALUATE}}],
        "round": [{"generate": GENERATE}, "grade", {"sft": TRAIN}],
        "after": [{"evaluate": {"name": "trained", **EVALUATE}}, "compare", "report"],
    }
    return {key: value for key, value in {**values, **changes}.items() if value is not None}


def plan(**changes):
    return make_plan(read_experiment(recipe(**changes)))


def stages(**changes):
    return {stage.label: stage for stage in plan(**changes).stages}


def keys(**changes):
    return {label: stage.key for label, stage in stages(**changes).items()}


def changed(**changes):
    """The stages whose keys are other ones than without the changes."""
    before, after = keys(), keys(**changes)
    return {label for label in after if after[label] != before.get(label)}


def fails(message, **changes):
    with pytest.raises(UsageError) as caught:
        plan(**changes)
    assert message in str(caught.value), caught.value


# ---- What connects stages ----


def test_stages_run_in_order_with_each_round_repeated():
    assert list(stages()) == [
        "before/base",
        *(f"round-{number}/{name}" for number in (1, 2) for name in ("generate", "grade", "sft")),
        "after/trained",
        "after/compare",
        "after/report",
    ]


def test_every_stage_has_the_model_of_its_point():
    found = stages()
    first, second = (str(found[f"round-{number}/sft"].output) for number in (1, 2))
    models = {
        label: stage.settings[COMMANDS[stage.command].model]
        for label, stage in found.items()
        if COMMANDS[stage.command].model
    }
    assert models == {
        "before/base": "embedded:tiny",
        "round-1/generate": "embedded:tiny",
        "round-1/sft": "embedded:tiny",
        "round-2/generate": first,
        "round-2/sft": first,
        "after/trained": second,
    }


def test_grading_takes_the_samples_before_it_and_their_problems():
    write_problems("other.jsonl", 5)
    found = stages(
        round=[{"generate": GENERATE}, {"generate": {"name": "more", "data": "other.jsonl", **GENERATE}}, "grade"]
    )
    grade = found["round-2/grade"]
    assert grade.settings["samples"] == str(found["round-2/more"].output)
    assert grade.settings["data"] == "other.jsonl"
    assert grade.output.parent == found["round-2/more"].output
    named = [{"generate": {**GENERATE, "data": "other.jsonl"}}, {"grade": {"samples": "{generate}"}}]
    assert stages(round=named)["round-2/grade"].settings["data"] == "other.jsonl"


def test_comparing_and_reporting_take_the_evaluations_so_far():
    found = stages()
    first, last = str(found["before/base"].output), str(found["after/trained"].output)
    assert found["after/compare"].settings["runs"] == [first, last]
    models = [str(found[f"round-{number}/sft"].output) for number in (1, 2)]
    assert found["after/report"].settings["runs"] == [first, *models, last]
    assert found["after/compare"].words[:3] == ["compare", first, last]


def test_placeholders_name_stages_models_and_rounds():
    found = stages(
        round=[{"generate": {**GENERATE, "seed": "{round}", "stop": "{{round}}"}}, "grade", {"sft": TRAIN}],
        after=[
            {"evaluate": {"name": "again", **EVALUATE, "model": "{start}"}},
            {"evaluate": {"name": "first", **EVALUATE, "model": "{round-1/sft}"}},
            {"evaluate": {"name": "last", **EVALUATE, "model": "{sft}"}},
        ],
    )
    assert [found[f"round-{number}/generate"].given.get("seed", 0) for number in (1, 2)] == [1, 2]
    assert found["round-1/generate"].given["stop"] == ["{round}"]
    assert found["after/again"].settings["model"] == "embedded:tiny"
    assert found["after/first"].settings["model"] == str(found["round-1/sft"].output)
    assert found["after/last"].settings["model"] == str(found["round-2/sft"].output)


def test_settings_of_a_command_are_those_of_all_its_stages():
    shared = stages(
        evaluate={**EVALUATE, "num_samples": 7}, before=["evaluate"], after=[{"evaluate": {"num_samples": 3}}]
    )
    assert shared["before/evaluate"].given["num_samples"] == 7
    assert shared["after/evaluate"].given["num_samples"] == 3


def test_each_round_has_problems_of_its_own():
    """`problems: K` walks over the data in a seed's order, and begins anew at their end."""
    from trl_math.generation.arguments import load_problems

    found = stages(rounds=4, round=[{"generate": {**GENERATE, "problems": 4}}, "grade"], seed=5)
    asked = []
    for number in range(1, 5):
        arguments = build_generate(parse_flags(flags_of(found[f"round-{number}/generate"]))).generate
        asked += load_problems(arguments)["problem_id"]
    assert len(asked) == 16
    everything = [f"problems/{index}" for index in range(10)]
    assert sorted(asked[:10]) == everything and asked[:10] != everything
    assert asked[10:] == asked[:6], "a second pass in the same order"
    other = stages(round=[{"generate": {**GENERATE, "problems": 10}}], seed=6)["round-1/generate"]
    assert load_problems(build_generate(parse_flags(flags_of(other))).generate)["problem_id"] != asked[:10]


def test_windows_of_problems_in_generate():
    from trl_math.generation.arguments import GenerateArguments, load_problems

    def asked(**settings):
        arguments = GenerateArguments(data="problems.jsonl", **settings)
        return [int(name.rpartition("/")[2]) for name in load_problems(arguments)["problem_id"]], arguments.source

    assert asked(max_problems=3, skip_problems=8) == ([8, 9, 0], "problems.jsonl (3 problems behind 8)")
    assert asked(max_problems=30, skip_problems=12)[0] == [2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    everything, source = asked(shuffle_seed=1)
    assert sorted(everything) == list(range(10)) != everything
    assert source == "problems.jsonl (in the order of seed 1)"
    assert asked(shuffle_seed=1, max_problems=4, skip_problems=3)[0] == everything[3:7]
    assert asked() == (list(range(10)), "problems.jsonl")
    with pytest.raises(UsageError, match="skip_problems needs max_problems"):
        GenerateArguments(skip_problems=3)
    with pytest.raises(UsageError, match="skip_problems must be 0 or above, got -1"):
        GenerateArguments(skip_problems=-1, max_problems=2)


def test_a_revision_is_of_the_start_model_only():
    found = stages(model="some/model", revision="abc", before=None, after=None)
    assert found["round-1/generate"].settings["revision"] == "abc"
    assert found["round-1/sft"].settings["model_revision"] == "abc"
    assert "revision" not in found["round-2/generate"].settings
    again = stages(
        model="some/model", revision="abc", before=None, after=[{"generate": {**GENERATE, "model": "{start}"}}]
    )
    assert again["after/generate"].settings["revision"] == "abc"


def test_an_adapter_is_merged_before_the_next_round_trains():
    trained = stages(round=[{"sft": TRAIN}, "merge"], rounds=1, after=["report"])
    assert trained["after/report"].settings["runs"] == [
        str(trained[label].output) for label in ("before/base", "round-1/sft")
    ], "a merged model has no curves"
    lora = {"sft": {**TRAIN, "use_peft": True}}
    fails("round-2/sft: it would train on top of the LoRA adapter of round-1/sft: put a merge stage", round=[lora])
    found = stages(round=[{"generate": GENERATE}, lora, "merge"])
    merged = str(found["round-1/merge"].output)
    assert found["round-1/merge"].words[:2] == ["merge", str(found["round-1/sft"].output)]
    assert found["round-2/generate"].settings["model"] == found["round-2/sft"].settings["model_name_or_path"] == merged
    assert stages(rounds=1, round=[lora], after=[{"evaluate": EVALUATE}]), "an adapter can be evaluated"


def test_pairs_of_several_prompts_are_trained_on_only_if_that_is_meant():
    """The trainer would refuse them, after everything was sampled."""
    asked = [{"generate": {"name": style, "prompt_style": style, **GENERATE}} for style in ("plain", "cot")]
    grades = [{"grade": {"name": f"grade-{style}", "samples": f"{{{style}}}"}} for style in ("plain", "cot")]
    both = {"samples": ["{grade-plain}", "{grade-cot}"], "mixed_templates": True}
    train = {"use_cpu": True, "bf16": False}
    fails(
        "the pairs of round-1/pairs are of several ways of asking: set mixed_samplers: true",
        round=[*asked, *grades, {"pairs": both}, {"dpo": train}],
    )
    assert plan(round=[*asked, *grades, {"pairs": both}, {"dpo": {**train, "mixed_samplers": True}}])


def test_live_pairs_need_no_stage_that_makes_pairs():
    live = {"dpo": {"use_cpu": True, "bf16": False, "max_steps": 2, "live_data": "problems.jsonl"}}
    assert "dataset_name" not in stages(round=[live])["round-1/dpo"].settings
    fails("round-1/dpo: it needs preference pairs", round=[{"dpo": {"use_cpu": True, "bf16": False}}])


# ---- Keys ----


def test_the_same_recipe_has_the_same_keys_wherever_it_writes():
    assert changed() == set()
    assert changed(output="elsewhere/x", description="other words") == set()
    assert changed(round=[{"generate": {**GENERATE, "num_samples": "4"}}, {"grade": {}}, {"sft": TRAIN}]) == set()


@pytest.mark.parametrize(
    "machine",
    [
        {"round": [{"generate": {**GENERATE, "data_parallel_size": 2}}, {"grade": {"workers": 2}}, {"sft": TRAIN}]},
        {"round": [{"generate": GENERATE}, "grade", {"sft": {**TRAIN, "logging_steps": 7, "report_to": "none"}}]},
        {
            "round": [
                {"generate": GENERATE},
                "grade",
                {"sft": {**TRAIN, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}},
            ]
        },
    ],
    ids=["engines", "logging", "how the batch comes about"],
)
def test_what_does_not_change_a_result_changes_no_key(machine):
    assert changed(**machine) == set()


def test_a_changed_stage_changes_itself_and_what_depends_on_it():
    behind = {f"round-2/{name}" for name in ("generate", "grade", "sft")} | {
        f"after/{name}" for name in ("trained", "compare", "report")
    }
    other = [{"generate": GENERATE}, "grade", {"sft": {**TRAIN, "learning_rate": 1e-3}}]
    assert changed(round=other) == {"round-1/sft"} | behind
    batch = [{"generate": GENERATE}, "grade", {"sft": {**TRAIN, "per_device_train_batch_size": 4}}]
    assert changed(round=batch) == {"round-1/sft"} | behind
    # Grades are not what is trained on here.
    graded = [{"generate": GENERATE}, {"grade": {"deadline": 1.0}}, {"sft": TRAIN}]
    assert changed(round=graded) == {"round-1/grade", "round-2/grade"}
    assert changed(rounds=1) == {f"after/{name}" for name in ("trained", "compare", "report")}
    assert changed(rounds=3) >= {f"round-3/{name}" for name in ("generate", "grade", "sft")}


def test_inputs_count_by_content():
    before = keys()
    save_tiny("start", seed=1)
    assert changed(model="start") == before.keys()
    there = keys(model="start")
    Path("start").rename("moved")
    assert keys(model="moved") == there, "a model is known by its weights, wherever it lies"
    Path("sub").mkdir()
    Path("problems.jsonl").rename("sub/problems.jsonl")
    Path("problems.jsonl").write_text(Path("sub/problems.jsonl").read_text().replace("mod 10", "modulo 10"))
    assert changed_from(before) == before.keys()


def changed_from(before):
    return {label for label, key in keys().items() if key != before[label]}


def test_flags_override_settings_of_stages():
    assert changed(**{"generate.num_samples": "4"}) == set()
    assert stages(**{"generate.num_samples": "9"})["round-2/generate"].given["num_samples"] == 9
    assert stages(**{"trained.num_samples": "3"})["after/trained"].given["num_samples"] == 3
    assert stages(**{"trained.num_samples": "3"})["before/base"].given["num_samples"] == 2
    fails("there is no stage 'generat'. Did you mean 'generate'?", **{"generat.num_samples": "9"})
    fails("may not set output", **{"generate.output": "x"})


@pytest.mark.parametrize(
    "stop", ["\n", "}", ["a b", '"', "Question:"], ["{{x}}"], "--flag", "= 5", ["[1]", "null"]], ids=repr
)
def test_texts_reach_the_command_as_they_are(stop):
    """Whatever YAML has is what the command reads from its flags."""
    found = stages(round=[{"generate": {**GENERATE, "stop": stop}}])["round-1/generate"]
    wanted = [text.replace("{{", "{").replace("}}", "}") for text in ([stop] if isinstance(stop, str) else stop)]
    assert list(build_generate(parse_flags(flags_of(found))).generate.sampling().stop) == wanted


# ---- What is refused ----


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"round": [{"generat": {}}]}, "Unknown command in stage 1 of round 'generat'. Did you mean 'generate'?"),
        ({"round": [{"generate": None, "num_samples": 8}]}, "got the keys generate, num_samples"),
        ({"round": [["generate"]]}, "must be one command with its settings indented below it"),
        ({"round": [{"generate": ["num_samples"]}]}, "stage 1 of round needs its settings as `key: value`"),
        ({"round": [{"generate": {"num_sample": 8}}]}, "round-1/generate: Unknown key 'num_sample'. Did you mean"),
        ({"round": [{"generate": {"num_samples": "many"}}]}, "round-1/generate: num_samples must be int"),
        ({"round": [{"generate": {"output": "x"}}]}, "round/generate may not set output: each stage has a folder"),
        ({"round": [{"sft": {**TRAIN, "hub_token": "hf_x"}}]}, "may not set hub_token: it would be written down"),
        ({"round": ["grade"]}, "round-1/grade: it needs samples, and the stages before it make none"),
        ({"before": [], "after": ["compare"]}, "after/compare: it needs evaluations, and the stages before it"),
        ({"round": ["generate", "generate"]}, "Two stages of round are called generate"),
        ({"round": [{"generate": {"name": "model"}}]}, "none of model, start, round"),
        ({"round": [{"generate": {"name": "a/b"}}]}, "must be letters, digits, - and _"),
        ({"round": [{"generate": {"model": "{gnerate}"}}]}, "There is nothing called {gnerate} before it"),
        ({"before": [{"evaluate": {**EVALUATE, "model": "{generate}"}}]}, "There is nothing called {generate}"),
        ({"before": [{"evaluate": {**EVALUATE, "seed": "{round}"}}]}, "{round} stands for nothing outside"),
        ({"model": None}, "before/base: {model} stands for nothing as long as the recipe names no model"),
        ({"before": [{"generate": {"problems": 4}}]}, "problems takes other problems in each round"),
        ({"round": [{"generate": {"problems": 0}}]}, "problems must be at least 1, got 0"),
        ({"round": [{"generate": {"problems": 4, "max_problems": 4}}]}, "without max_problems and skip_problems"),
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"round": None}, "rounds: 2 repeats the stages of round, and there are none"),
        ({"rounds": 1, "before": None, "round": None, "after": None}, "There is no stage"),
        ({"stages": []}, "Unknown key 'stages'"),
        ({"pairs": {"rule": "all"}}, "There are settings for pairs, and no stage of that command"),
        ({"dataset_name": "x"}, "dataset_name is data, which is given too"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[:40],
)  # fmt: skip
def test_mistakes_are_named(changes, message):
    fails(message, **changes)
