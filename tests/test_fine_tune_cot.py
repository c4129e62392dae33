"""The recipes of Fine-tune-CoT: what is published is as published, and none has a mistake of the original's list."""

import re
from pathlib import Path

import pytest

from trl_math.data.prompts import PROMPT_STYLES
from trl_math.pipeline.plan import make_plan
from trl_math.pipeline.recipe import read_experiment, run_smoke_values
from trl_math.recipes import all_recipes, read_recipe, recipe_name


RECIPES = [path for path in all_recipes() if path.parent.name == "fine-tune-cot"]
FOR_GPUS = [path for path in RECIPES if not path.stem.endswith("-laptop")]
PUBLISHED = {"num_train_epochs": 20, "learning_rate": 3e-4, "lr_scheduler_type": "constant", "dtype": "float32"}


def stages_of(path):
    return make_plan(read_experiment(read_recipe(path))).stages


def by_variant(stages):
    """Return the training, the rows that it takes and the evaluation behind it, of every arm and seed."""
    found = {}
    for stage in stages:
        if stage.variant and stage.command in ("sft", "evaluate", "rationales", "split"):
            found.setdefault(stage.variant, {})[stage.command] = stage
    return found


@pytest.mark.parametrize("path", FOR_GPUS, ids=recipe_name)
def test_hyper_parameters_are_the_published_ones(path):
    sft = read_recipe(path)["sft"]
    assert {name: sft[name] for name in PUBLISHED} == PUBLISHED
    assert sft["per_device_train_batch_size"] * sft["gradient_accumulation_steps"] == 8


@pytest.mark.parametrize("path", RECIPES, ids=recipe_name)
def test_the_epoch_is_never_chosen_on_what_is_reported(path):
    for stage in stages_of(path):
        if stage.command == "sft":
            given = stage.given
            assert given["load_best_model_at_end"] and given["metric_for_best_model"] == "pass@1"
            assert given["eval_generation_split"] == "validation"
            assert not {"dataset_test_split", "eval_dataset_name"} & set(given), "the epoch is chosen by asking alone"
        if stage.command in ("sft", "rationales"):
            assert "test" not in (stage.given.get("dataset_train_split"), stage.given.get("split"))


@pytest.mark.parametrize("path", RECIPES, ids=recipe_name)
def test_students_are_asked_in_the_style_that_they_were_trained_in(path):
    every = stages_of(path)
    made = {str(stage.output): stage.given for stage in every}  # two arms may share the stage that makes their rows
    variants = by_variant(every)
    assert variants
    for name, stages in variants.items():
        trained = stages["sft"].given
        style = trained.get("prompt_style") or made[trained["dataset_name"]]["row_style"]
        assert trained["eval_generation_prompt_style"] == style, name
        assert stages["evaluate"].given["prompt_style"] == style, name
        is_of_words = trained.get("prompt_style") is None
        assert bool(PROMPT_STYLES[style].answer_prefix) == is_of_words, "rationales announce their answer"


@pytest.mark.parametrize("path", RECIPES, ids=recipe_name)
def test_all_arms_read_the_same_samples_of_the_teacher(path):
    """Drawn once, from what trains; so the rationales of a smaller D are among those of a larger one."""
    stages = stages_of(path)
    drawn = [stage for stage in stages if not stage.variant and stage.command == "rationales"]
    places = {str(stage.output.parent) for stage in drawn} | {str(stage.output) for stage in drawn}
    for stage in drawn:
        assert stage.given.get("split", "train") == "train" and stage.given["data"] != read_recipe(path)["data"]
    for stage in stages:
        if stage.variant and stage.command == "rationales":
            assert str(stage.given["samples"]) in places and "model" not in stage.given


def test_diverse_reasoning_is_the_published_grid():
    arms = read_recipe("fine-tune-cot/diverse")["arms"]
    numbers = [one["rationales.num_rationales"] for name, one in arms.items() if name != "ft"]
    assert numbers == [1, 2, 4, 8, 16, 32, 64]
    teacher = next(one["rationales"] for one in read_recipe("fine-tune-cot/diverse")["before"] if "rationales" in one)
    assert (teacher["num_rationales"], teacher["temperature"], teacher["max_tokens"]) == (64, 0.7, 128)
    assert teacher["prompting"] == "two_stage" and teacher["prompt_style"] == "zero_shot_cot"


def test_teachers_are_asked_the_test_problems_of_their_students():
    for path in FOR_GPUS:
        stages = stages_of(path)
        [teacher] = [stage for stage in stages if stage.name == "teacher"]
        asked = {tuple(stage.given["benchmarks"]) for stage in stages if stage.command == "evaluate"}
        assert asked == {tuple(teacher.given["benchmarks"])}
        compare = next(stage for stage in stages if stage.command == "compare")
        assert compare.given["references"]["teacher"] == str(teacher.output)


@pytest.mark.parametrize("path", RECIPES, ids=recipe_name)
def test_the_small_form_has_two_arms_and_can_be_planned(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = run_smoke_values(read_recipe(path), path.stem)
    assert len(small["arms"]) == 2
    commands = [stage.command for stage in make_plan(read_experiment(small)).stages]
    assert commands.count("sft") == 4 and commands[-2:] == ["compare", "report"]


def test_the_readme_names_the_mistakes_that_are_avoided_and_every_published_row():
    readme = (Path(RECIPES[0]).parent / "README.md").read_text()
    for number in ("17.78", "53.33", "33.33", "78.79", "24.34", "15.00", "21.11", "89.33", "413", "187"):
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.])", readme), number
