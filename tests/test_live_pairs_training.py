"""Training on live pairs, for real: a tiny model that answers 7 or 8, asked by itself while it trains."""

import json
import shutil

import pytest
import torch
from helpers import history, same_weights
from live_runs import NUM_PROBLEMS, live_settings, live_trainer, log_probability, read_pairs, read_rows, save_answerer
from peft import LoraConfig
from transformers import AutoModelForCausalLM, PreTrainedModel

from trl_math.errors import DataError, MissingPackageError, ParityError, RunFolderError, UsageError
from trl_math.files import write_whole
from trl_math.trainers import MathDPOConfig, MathDPOTrainer
from trl_math.trainers.live_drift import as_drift, drift_sums, sampler_said


SAVES = {"save_strategy": "steps", "save_steps": 1}
LORA = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")


@pytest.fixture(scope="module")
def answerer(tmp_path_factory):
    return save_answerer(tmp_path_factory.mktemp("answerer"))


@pytest.fixture(scope="module")
def finished(answerer, tmp_path_factory):
    """A run of eight steps, with a checkpoint after each."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    trainer = live_trainer(answerer, folder, max_steps=8, live_max_staleness=3, **SAVES)
    trainer.train()
    return trainer, folder


def live_log(trainer, name):
    """Return (step, value) wherever `live/<name>` was logged."""
    return [(log["step"], log[f"live/{name}"]) for log in trainer.state.log_history if f"live/{name}" in log]


def test_pairs_come_from_the_current_weights(finished, answerer):
    """What the sampler said of every answer is what the checkpoint of that step says, and no other one."""
    _, folder = finished
    refreshes = read_pairs(folder)
    assert list(refreshes) == [0, 2, 4, 6]
    start = AutoModelForCausalLM.from_pretrained(f"{answerer}/model", dtype=torch.float32)
    for step, pairs in refreshes.items():
        weights = folder / f"checkpoint-{step}" if step else f"{answerer}/model"
        model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32)
        for pair in pairs:
            for side in ("chosen", "rejected"):
                said = pair[f"{side}_logprob"]
                assert log_probability(model, pair["prompt_ids"], pair[f"{side}_ids"]) == pytest.approx(said, abs=1e-4)
        answers = [(pair["prompt_ids"], pair["chosen_ids"], pair["chosen_logprob"]) for pair in pairs]
        moved = max(abs(log_probability(start, prompt, ids) - said) for prompt, ids, said in answers)
        assert moved < 1e-4 if step == 0 else moved > 1e-2


def test_pairs_are_right_and_wrong_answers_of_one_problem(finished, answerer):
    """Token ids are those of the texts, with the end token as sampled; the verdicts are the problems' answers."""
    trainer, folder = finished
    gold = {row["id"]: row for row in read_rows(f"{answerer}/problems.jsonl")}
    tokenizer = trainer.processing_class
    for step, pairs in read_pairs(folder).items():
        for pair in pairs:
            problem = gold[pair["problem_id"]]
            assert pair["sampled_at_step"] == step
            assert tokenizer.decode(pair["prompt_ids"]) == pair["prompt"] == problem["problem"]
            assert pair["chosen"] == problem["answer"] != pair["rejected"]
            for side in ("chosen", "rejected"):
                is_whole = pair[f"{side}_finish_reason"] == "stop"
                assert is_whole
                assert tokenizer.decode(pair[f"{side}_ids"]) == pair[side] + tokenizer.eos_token
            assert pair["pass_rate"] in (0.25, 0.5, 0.75)


def test_pairs_without_a_weight_do_not_fill_steps(answerer, tmp_path):
    """A band leaves some pairs nothing: problems are asked until the steps are full of others, or nothing comes."""
    band = {"pair_weight": "band", "live_save_pairs": True}
    trainer = live_trainer(answerer, tmp_path / "out", max_steps=2, pair_weight_params={"max_pass_rate": 0.5}, **band)
    trainer.train()
    rates = [pair["pass_rate"] for pairs in read_pairs(tmp_path / "out").values() for pair in pairs]
    assert trainer.state.global_step == 2 and rates and max(rates) <= 0.5
    params = {"min_pass_rate": 0.95}
    with pytest.raises(DataError, match=r"No pair can be built.*pairs of weight 0 \(pair_weight: band\)"):
        live_trainer(answerer, tmp_path / "none", max_steps=2, pair_weight_params=params, **band).train()


def test_what_is_logged(finished):
    """Agreement at every refresh, ages within a span, and numbers that can be counted again from the files."""
    trainer, folder = finished
    assert [step for step, _ in live_log(trainer, "parity")] == [1, 3, 5, 7]
    assert max(value for _, value in live_log(trainer, "parity_max")) < 1e-4
    assert [value for _, value in live_log(trainer, "staleness_max")][:2] == [0, 1]
    drifts = dict(live_log(trainer, "drift"))
    assert drifts[1] < 1e-4 < drifts[2]
    asked = NUM_PROBLEMS * trainer._live.progress
    pairs = read_pairs(folder)
    state = trainer._live.state
    assert state.num_problems == asked
    assert state.num_samples == 4 * asked
    assert state.num_pairs == sum(map(len, pairs.values()))
    assert trainer.state.epoch == pytest.approx(trainer._live.progress)
    rates = dict(live_log(trainer, "pass_rate"))
    assert set(rates) == {1, 3, 5, 7}
    assert all(0.2 < rate < 0.8 for rate in rates.values())


def test_a_checkpoint_holds_the_buffer(finished):
    """After an odd step one step of pairs waits, with the tokens that will be trained on and nothing to compare."""
    _, folder = finished
    state = json.loads((folder / "checkpoint-3" / "live_pairs.json").read_text())
    assert state["steps_left"] == 1
    assert len(state["buffer"]) >= 4
    assert {"prompt_ids", "chosen_ids", "rejected_ids", "sampled_at_step"} <= set(state["buffer"][0])
    assert not any(name.endswith("token_logps") for pair in state["buffer"] for name in pair)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_resume_is_exact(finished, answerer, tmp_path, steps):
    """k steps, resume, the rest: the same bits and the same pairs, in the middle of a span and at its end."""
    whole, folder = finished
    again = live_trainer(answerer, tmp_path / "again", max_steps=8, live_max_staleness=3, **SAVES)
    again.train(resume_from_checkpoint=str(folder / f"checkpoint-{steps}"))
    assert same_weights(whole, again)
    assert history(again)[-2:] == history(whole)[-2:]
    assert again._live.state == whole._live.state
    later = read_pairs(tmp_path / "again")
    assert later
    assert later == {step: pairs for step, pairs in read_pairs(folder).items() if step >= steps}


def test_resume_is_exact_with_an_adapter_and_schedules(answerer, tmp_path):
    changes = {"peft_config": LORA, "pair_weight": "linear", "beta_schedule": "linear", "live_every": 3, **SAVES}
    whole = live_trainer(answerer, tmp_path / "whole", **changes)
    whole.train()
    again = live_trainer(answerer, tmp_path / "again", **changes)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    assert same_weights(whole, again)
    assert again._live.state == whole._live.state


def test_schedules_keep_their_means_in_every_span(answerer, tmp_path):
    """Pairs of hard problems weigh more, and the mean weight of each span is 1."""
    trainer = live_trainer(answerer, tmp_path, pair_weight="linear", max_steps=4, live_every=4)
    spans = []
    schedule = trainer._sampler.schedule
    trainer._sampler.schedule = lambda pairs: spans.append(schedule(pairs)) or spans[-1]
    trainer.train()
    (span,) = spans
    weights = {pair["pass_rate"]: pair["loss_weight"] for pair in span}
    assert sum(pair["loss_weight"] for pair in span) / len(span) == pytest.approx(1)
    assert weights[0.25] > weights[0.75]


def test_problems_weigh_the_same_in_a_span(answerer, tmp_path):
    """weighting: equal_problems holds over what is trained on, however the problems were asked."""
    params = {"weighting": "equal_problems", "pairs_per_problem": 2, "duplicates": "keep"}
    trainer = live_trainer(
        answerer, tmp_path, max_steps=2, live_pair_rule="random", live_pair_params=params, live_num_samples=6
    )
    pairs = [
        {"problem_id": name, "prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3], "pass_rate": 0.5}
        for name in ("a", "a", "a", "b")
    ]
    sums = {"a": 0.0, "b": 0.0}
    for pair in trainer._sampler.schedule(pairs):
        sums[pair["problem_id"]] += pair["loss_weight"]
    assert sums["a"] == pytest.approx(sums["b"])
    trainer.train()
    assert trainer.state.global_step == 2


def test_a_sampler_that_does_not_follow_stops_training(answerer, tmp_path, caplog):
    """Log-probabilities off by 0.05 a token: no optimiser step is taken; with `warn` it is, and says so."""

    def broken(trainer):
        sample = trainer._sampler._engine.sample

        def off(prompts, sampling):
            completions = sample(prompts, sampling)
            return [
                [type(one)(**{**vars(one), "logprobs": tuple(p - 0.05 for p in one.logprobs)}) for one in row]
                for row in completions
            ]

        trainer._sampler._engine.sample = off
        return trainer

    trainer = broken(live_trainer(answerer, tmp_path / "fail"))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with pytest.raises(ParityError, match=r"differ by 0\.05 nats a token"):
        trainer.train()
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    trainer = broken(live_trainer(answerer, tmp_path / "warn", live_parity="warn", max_steps=1))
    trainer.train()
    assert "differ by 0.05 nats a token" in caplog.text


def test_drift_counts_trained_tokens_only():
    """By hand: two pairs, one of them with a masked token; parity over known tokens, drift over all answers."""
    pairs = [
        {
            "prompt_ids": [1, 2],
            "chosen_ids": [3, 4],
            "rejected_ids": [5],
            "chosen_logprob": -3.0,
            "rejected_logprob": -1.0,
        }
        | {"chosen_token_logps": [-1.0, -2.0], "rejected_token_logps": [-1.0]},
        {"prompt_ids": [1], "chosen_ids": [3, 4, 5], "rejected_ids": [6, 7], "chosen_logprob": -5.0}
        | {"rejected_logprob": -4.0},
    ]
    #                         chosen        chosen        rejected      rejected
    mask = torch.tensor([[0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 1, 0], [0, 1, 1, 0]])
    said = sampler_said(pairs, mask)
    log_probs = torch.tensor([[-9, -1.5, -2.0], [-2.0, -9, -2.0], [-9, -1.25, -9], [-2.0, -2.0, -9]])
    found = as_drift(drift_sums(log_probs, mask, said)[None])
    assert found.parity == pytest.approx((0.5 + 0.0 + 0.25) / 3)
    assert found.parity_max == pytest.approx(0.5)
    assert found.drift == pytest.approx((0.25 + 0.5 + 0.25 + 0.0) / 4)


def test_training_raises_the_pass_rate_and_ends_with_it(answerer, tmp_path, caplog):
    """Where every answer is 7 the model learns to say 7; then nothing is left to pair, and training ends."""
    rows = [row | {"answer": "7"} for row in read_rows(f"{answerer}/problems.jsonl")]
    write_whole(tmp_path / "sevens.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    trainer = live_trainer(
        answerer,
        tmp_path / "out",
        live_data=str(tmp_path / "sevens.jsonl"),
        live_every=4,
        live_problems=24,
        max_steps=60,
        learning_rate=3e-3,
        beta=0.5,
    )
    trainer.train()
    rates = [rate for _, rate in live_log(trainer, "pass_rate")]
    assert rates[0] < 0.7
    assert rates[-1] > 0.9
    assert "Training ends here. No pair can be built of the 24 problems" in caplog.text
    assert "always: 2" in caplog.text
    assert trainer.state.global_step == len(history(trainer)) < 60


EVALUATES = {
    "eval_generation_split": "problems",
    "eval_generation_prompt_style": "plain",
    "eval_generation_max_tokens": 3,
    "eval_strategy": "steps",
    "eval_steps": 2,
}


@pytest.mark.parametrize("with_pairs", [True, False])
def test_it_is_evaluated_while_it_trains(answerer, tmp_path, with_pairs):
    """Evaluation by generation beside live pairs changes neither the pairs nor the weights; it needs no pairs."""
    plain = live_trainer(answerer, tmp_path / "plain", max_steps=4)
    plain.train()
    held_out = _eval_rows(read_pairs(tmp_path / "plain")[0]) if with_pairs else None
    asked = {"eval_generation_data": f"{answerer}/problems.jsonl", "eval_on_start": True, **EVALUATES}
    with_eval = live_trainer(answerer, tmp_path / "eval", max_steps=4, eval_dataset=held_out, **asked)
    with_eval.train()
    evaluations = [log for log in with_eval.state.log_history if "eval_pass@1" in log]
    assert [log["step"] for log in evaluations] == [0, 2, 4]
    assert any("eval_loss" in log for log in with_eval.state.log_history) == with_pairs
    assert read_pairs(tmp_path / "eval") == read_pairs(tmp_path / "plain")
    assert same_weights(plain, with_eval)
    assert history(plain) == history(with_eval)


def _eval_rows(pairs):
    from datasets import Dataset

    return Dataset.from_list(
        [{name: pair[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids")} for pair in pairs]
    )


BAD = {
    "live_every: 4 without data": ({"live_data": None, "live_every": 4}, "set live_data too"),
    "no max_steps": ({"max_steps": -1}, "set max_steps"),
    "no style": ({"live_prompt_style": None}, "How shall the problems"),
    "a style without answers": ({"live_prompt_style": "program"}, "Unknown live_prompt_style 'program'"),
    "unknown rule": ({"live_pair_rule": "balance"}, "Did you mean 'balanced'"),
    "unknown pair setting": (
        {"live_pair_params": {"max_pair_per_problem": 3}},
        "Did you mean 'max_pairs_per_problem'",
    ),
    "held-out pairs": ({"live_pair_params": {"eval_fraction": 0.1}}, "Unknown key of live_pair_params"),
    "not a mapping": ({"live_pair_params": "3 pairs"}, "live_pair_params must be a mapping"),
    "one sample": ({"live_num_samples": 1}, "at least 2"),
    "greedy": ({"live_temperature": 0.0}, "would be the same"),
    "no steps": ({"live_every": 0}, "live_every must be at least 1"),
    "staleness": ({"live_max_staleness": -1}, "live_max_staleness must be 0"),
    "answers that do not fit": ({"live_max_tokens": 64}, "max_length: 64"),
    "precomputed references": ({"precompute_ref_log_probs": True}, "the pairs do not exist yet"),
    "nothing to evaluate on": ({"eval_strategy": "steps"}, "set eval_generation_data"),
    "epochs": ({"save_strategy": "epoch"}, "save_strategy: epoch never comes"),
    "workers": ({"dataloader_num_workers": 2}, "dataloader_num_workers"),
    "an unused engine setting": (
        {"live_engine": "transformers", "live_num_engines": 1},
        "live_num_engines is for engine vllm",
    ),
    "unknown engine": ({"live_engine": "vlm"}, "Did you mean 'vllm'"),
    "memory": ({"live_gpu_memory_utilization": 0.0}, "live_gpu_memory_utilization"),
    "parity": ({"live_parity": "no"}, "Unknown live_parity"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_bad_settings(answerer, tmp_path, monkeypatch, changes, message):
    """One line that says what to do, before a model is loaded."""
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", None)
    with pytest.raises(UsageError, match=message) as error:
        live_trainer(answerer, tmp_path, **changes)
    assert "\n" not in str(error.value)


def test_vllm_that_is_missing_is_named_before_the_model_is_loaded(answerer, tmp_path, monkeypatch):
    monkeypatch.setattr("trl_math.optional.is_installed", lambda package: package != "vllm")
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", None)
    with pytest.raises(MissingPackageError, match=r"live_engine: vllm needs the package 'vllm'.*trl-math\[vllm\]"):
        live_trainer(answerer, tmp_path, live_engine="vllm")


BAD_DATA = {
    "no gold answers": ([{"problem": "1="}], "Expected a problem .* and an answer"),
    "gold answers that cannot be read": ([{"problem": "1=", "answer": "\\frac{"}], "has an answer that can be read"),
    "prompts longer than the limit": ([{"problem": "1" * 70, "answer": "7"}], "shortest prompt has 70 tokens"),
    "no problems": ([{"prompt": "1=", "chosen": "7", "rejected": "8"}], "problem"),
}


@pytest.mark.parametrize(("rows", "message"), BAD_DATA.values(), ids=BAD_DATA)
def test_bad_problems(answerer, tmp_path, rows, message):
    write_whole(tmp_path / "bad.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=message):
        live_trainer(answerer, tmp_path / "out", live_data=str(tmp_path / "bad.jsonl"))


def test_pairs_and_live_data_are_one_too_many(answerer, tmp_path):
    rows = _eval_rows([{"prompt_ids": [9], "chosen_ids": [10], "rejected_ids": [11]}])
    config = MathDPOConfig(**live_settings(answerer, tmp_path))
    with pytest.raises(UsageError, match="leave out the data set"):
        MathDPOTrainer(f"{answerer}/model", args=config, train_dataset=rows)


def test_checkpoints_of_other_runs_are_refused(finished, answerer, tmp_path):
    """One of a run without live pairs, and one of a run on other problems."""
    _, folder = finished
    plain = shutil.copytree(folder / "checkpoint-3", tmp_path / "checkpoint-3")
    (plain / "live_pairs.json").unlink()
    with pytest.raises(RunFolderError, match="was not written with live_data"):
        live_trainer(answerer, tmp_path / "a").train(resume_from_checkpoint=str(plain))
    rows = read_rows(f"{answerer}/problems.jsonl")[:12]
    write_whole(tmp_path / "fewer.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    other = live_trainer(answerer, tmp_path / "b", live_data=str(tmp_path / "fewer.jsonl"))
    with pytest.raises(RunFolderError, match="other live_data"):
        other.train(resume_from_checkpoint=str(folder / "checkpoint-3"))
