"""`trl-math run --smoke`: the same stages and rounds for real, with the embedded model on products of one digit.

What a stage is about stays (the rule of pairs, the losses, LoRA); what needs a cluster, time or a harder model is
replaced, as `trl_math.smoke` does for single commands. Each function here makes one command's settings small.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trl_math.files import write_whole
from trl_math.smoke import (
    KEPT_OF_ALL,
    LIVE_KEPT,
    LIVE_REPLACED,
    OF_ITS_DATA,
    REPLACED,
    small_screening,
    smoke_model,
)


MODEL = "embedded:smollm2-135m-instruct"
NUM_ROUNDS = 2
NUM_PROBLEMS, NUM_SAMPLES = 8, 8
# Shown how it goes, the embedded model is right about two times in three, so that there is something to learn from.
SHOTS = "2 * 2 = 4\n3 * 5 = 15\n"
FACTORS = range(2, 10)

ENGINE = {"backend": "transformers", "dtype": "bfloat16", "batch_size": 64}
# A product is there after some tokens, and the next line is another subject.
SAMPLING = {"max_tokens": 8, "stop": ["\n"]}
SAMPLING_KEPT = {*KEPT_OF_ALL, "logprobs"}
# Ways of asking that leave the problem as it is, or nearly. Different ones stay different.
STYLES = ("plain", "cot", "direct", "tool")
# Of pairs: what would leave nothing of so few samples, or speaks of other texts.
PAIRS_LEFT_OUT = {"min_pass_rate", "max_pass_rate", "prefix_to_prompt", "eval_fraction", "eval_problems", "tokenizer"}
# Of difficulty: what is told. What leaves problems out would leave none of so few.
DIFFICULTY_KEPT = {
    "estimator",
    "prior",
    "confidence",
    "levels",
    "level_rule",
    "rule",
    "threshold",
    "width",
    "rule_prior",
}
UNSURE = ("fixed", "width")  # rules without a rule_confidence
# Of collecting: whose answers count, and how many of them are wanted of whom.
COLLECT_KEPT = {"targets", "duplicates", "row_style"}
# Of a split: how much is on which side.
SPLIT_KEPT = {"test_share", "validation_share", "folds", "fold"}
# Of decontamination: who looks, and what follows. Thresholds and folders speak of other texts.
DECONTAMINATE_KEPT = {"detectors", "compare", "part", "on_contaminated", "candidates", "judge_kind"}
# Of rationales: which of them serve, and how they are asked for. Limits of length speak of other texts.
RATIONALES_KEPT = {
    "prompting",
    "row_style",
    "keep_wrong",
    "keep_unfinished",
    "duplicates",
    "near_threshold",
    "max_per_problem",
    "problem_weights",
}
# Of rephrasing: in which ways.
REPHRASE_KEPT = {"ways", "languages", "overlap_n", "renumber_by", "prompt_form"}
# Of comparing: what names arms.
OF_ARMS = ("controls", "labels", "lines", "parameters")
# Of training: what names models and data, which come from the stages before.
CONNECTED = {"model_name_or_path", "model_revision", "dataset_name", "dataset_config", "dataset_train_split"}


def write_products(path: Path) -> Path:
    """Write the problems of smoke runs, with pass rates for schedules and gates."""
    rows = [
        {"problem": f"{SHOTS}{a} * {b} =", "answer": str(a * b)}
        | {"pass_rate": (a + b) % 9 / 8, "num_samples": 64, "num_correct": (a + b) % 9 * 8}
        for a in FACTORS
        for b in FACTORS
    ]
    write_whole(path, "".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def small_styles(settings: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return how each way of asking that occurs is asked in a smoke run."""
    found = dict.fromkeys(one["prompt_style"] for one in settings if one.get("prompt_style") is not None)
    return {style: STYLES[min(place, len(STYLES) - 1)] for place, style in enumerate(found)}


def small_split(settings: Mapping[str, Any], data: str) -> dict[str, Any]:
    """Return the settings with products to divide, which are of one template: at random, in the same shares."""
    kept = {key: settings[key] for key in SPLIT_KEPT if key in settings}
    return {**connections(settings, data), **kept, "by": "random", "data": data}


def small_decontaminate(settings: Mapping[str, Any], data: str) -> dict[str, Any]:
    """Return the settings with products, which are none of the embedded word problems: nothing is taken out."""
    kept = {key: settings[key] for key in DECONTAMINATE_KEPT if key in settings}
    judge = {"model": MODEL, **ENGINE} if "judge" in str(settings.get("detectors", "")) else {}
    own = {"data": data} if settings.get("data") is not None else {}  # else what stages before it made
    return {**kept, **judge, "against": ["embedded:word_problems"], **own, **connections(settings, data)}


def small_generate(settings: Mapping[str, Any], data: str) -> dict[str, Any]:
    number = "problems" if "problems" in settings else "max_problems"
    return {**_asked(settings), "num_samples": NUM_SAMPLES, number: NUM_PROBLEMS, "data": data}


def small_evaluate(settings: Mapping[str, Any], data: str) -> dict[str, Any]:
    number = {"num_samples": 4, "max_problems": NUM_PROBLEMS}
    return {**_asked(settings), **number, "benchmarks": [data]}


def small_pairs(settings: Mapping[str, Any], data: str) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in PAIRS_LEFT_OUT}


def small_difficulty(settings: Mapping[str, Any], data: str) -> dict[str, Any]:
    small = {**connections(settings, data), **{key: settings[key] for key in DIFFICULTY_KEPT if key in settings}}
    if settings.get("model") is None:
        return small
    rule = {"rule_confidence": 0.9} if settings.get("rule") not in UNSURE else {}
    number = {"num_samples": 2 * NUM_SAMPLES, "max_problems": NUM_PROBLEMS}
    # A model, be it a teacher of its own, says that the stage samples; without one it reads what is graded.
    return {"model": MODEL, **_asked(settings), **small, **rule, **number, "data": data}


def small_collect(settings: Mapping[str, Any], data: str) -> dict[str, Any]:
    small = {**connections(settings, data), **{key: settings[key] for key in COLLECT_KEPT if key in settings}}
    number = "problems" if "problems" in settings else "max_problems"
    amounts = {"num_correct": 2, "max_trials": 2 * NUM_SAMPLES, number: NUM_PROBLEMS}
    return {**_asked(settings), **small, **amounts, "data": data}


def small_rationales(settings: Mapping[str, Any], data: str) -> dict[str, Any]:
    small = {**connections(settings, data), **{key: settings[key] for key in RATIONALES_KEPT if key in settings}}
    if "num_rationales" in settings or settings.get("model") is not None:
        small["num_rationales"] = min(int(settings.get("num_rationales", 8)), 4)
    if settings.get("model") is None:
        return {**small, "keep_wrong": True}  # of few samples, perhaps of two stages
    amounts = {"max_problems": NUM_PROBLEMS}
    # Asked for the answer behind a product, the embedded model repeats one that it was shown, and is never right.
    stages = {"answer_tokens": 8, "keep_wrong": True} if settings.get("prompting") == "two_stage" else {}
    return {**_asked(settings), **small, **amounts, **stages, "model": small.get("model", MODEL), "data": data}


def small_tokenize(settings: Mapping[str, Any], data: str) -> dict[str, Any]:
    """Return the settings with the embedded model's tokenizer and, for the recipe's own data, products."""
    small = {key: value for key, value in settings.items() if key not in ("data_config", "split", "revision")}
    if "{" not in str(settings.get("model", "{")):
        small["model"] = MODEL
    if "{" not in str(settings.get("data", "{")):
        small |= {"data": data, "prompt_style": "plain"}
    return small


def small_rephrase(settings: Mapping[str, Any], data: str) -> dict[str, Any]:
    """Return the settings for a model that rephrases products badly: few drafts, not checked by a solver."""
    small = {**connections(settings, data), **{key: settings[key] for key in REPHRASE_KEPT if key in settings}}
    if settings.get("model") is None:
        return {**small, "max_problems": NUM_PROBLEMS, "data": data}
    amounts = {"attempts": 2, "max_tokens": 48, "max_problems": 4, "check": "none", "keep_numbers": False}
    return {**small, **ENGINE, **amounts, "model": small.get("model", MODEL), "data": data}


def small_training(settings: Mapping[str, Any], data: str) -> dict[str, Any]:
    replaced = {key: value for key, value in REPLACED.items() if key not in CONNECTED}
    asked_later = {key for key in settings if key.startswith("eval_generation_")}  # evaluation is off
    kept = {key: value for key, value in settings.items() if key not in asked_later | {"dataset_config"}}
    length = settings.get("max_length", 1024)
    own = settings.get("model_name_or_path")
    named = {} if own is None or "{" in str(own) else {"model_name_or_path": smoke_model(str(own))}
    return {
        **kept,
        **replaced,
        **named,
        "gradient_accumulation_steps": min(int(settings.get("gradient_accumulation_steps", 1)), 2),
        "max_length": None if length is None else min(int(length), 256),
    }


def small_dpo(settings: Mapping[str, Any], data: str) -> dict[str, Any]:
    small = small_training({key: value for key, value in settings.items() if key != "reference_file"}, data)
    if settings.get("live_data") is None:
        return small
    others = {key: value for key, value in small.items() if not key.startswith("live_")}
    return {
        **others,
        **{key: settings[key] for key in LIVE_KEPT if key in settings},
        **LIVE_REPLACED,
        "live_data": data,
    }


def small_sft(settings: Mapping[str, Any], data: str) -> dict[str, Any]:
    is_of_stage = "{" in str(settings.get("dataset_name", "{"))
    small = small_training(small_screening(dict(settings)), data)
    if is_of_stage:
        return small
    own = {key: value for key, value in OF_ITS_DATA.items() if key in settings}
    return {**small, **own, "dataset_name": data, "prompt_style": "plain"}


def as_it_is(settings: Mapping[str, Any], data: str) -> dict[str, Any]:
    return dict(settings)


def small_compare(settings: Mapping[str, Any], data: str) -> dict[str, Any]:
    """Return the settings without what names arms, of which a smoke run has other ones."""
    return {key: value for key, value in connections(settings, data).items() if key not in OF_ARMS}


def connections(settings: Mapping[str, Any], data: str) -> dict[str, Any]:
    """Return what names other stages, of settings that speak of the recipe's own data."""
    return {key: value for key, value in settings.items() if "{" in str(value)}


def _asked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return small settings of sampling with those that stay; greedily there would be no two samples to compare."""
    kept = {key: settings[key] for key in SAMPLING_KEPT if settings.get(key)}
    return {"prompt_style": STYLES[0], **kept, **ENGINE, **SAMPLING}
