"""At neutral settings MathDPOTrainer is TRL's DPOTrainer, bit for bit: losses, gradients, metrics, weights."""

import pytest
import torch
from datasets import Dataset
from dpo_helpers import make_dpo_trainer, pairs, trained_dpo
from helpers import history, same_weights

from trl_math.models.tiny import tiny_model


CIRCUMSTANCES = {
    "plain": {},
    "accumulation": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3},
    "checkpointing": {"gradient_checkpointing": True},
    "bf16": {"bf16": True},
    "precomputed": {"precompute_ref_log_probs": True},
    "moving reference": {"sync_ref_model": True, "ref_model_sync_steps": 1},
    "truncated": {"max_length": 10, "max_truncated_fraction": 1.0},
    "several losses": {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
    "options of TRL's loss": {"ld_alpha": 0.5, "f_divergence_type": "js_divergence", "use_weighting": True},
}
OURS = ("max_truncated_fraction",)
# The suite has minutes; these are TRL's own code under another option.
LONG = ("checkpointing", "moving reference", "several losses", "options of TRL's loss")


def lora(**changes):
    from peft import LoraConfig

    return {"peft_config": LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.1, **changes)}


def same_logs(ours, theirs):
    """Whether whatever TRL logged was logged by ours, too, with the same value."""
    timed = ("runtime", "_per_second")
    return len(ours) == len(theirs) and all(
        mine.get(key) == value
        for mine, other in zip(ours, theirs, strict=True)
        for key, value in other.items()
        if not key.endswith(timed)
    )


@pytest.mark.parametrize(
    "circumstance",
    [
        pytest.param(settings, id=name, marks=[pytest.mark.slow] if name in LONG else [])
        for name, settings in CIRCUMSTANCES.items()
    ],
)
def test_neutral_settings_train_as_trl(tmp_path, circumstance):
    """Every number that TRL logs in training and evaluation, and the final weights, are its own bits."""
    known = {key: value for key, value in circumstance.items() if key not in OURS}
    theirs = trained_dpo(tmp_path / "a", eval_dataset=pairs(6), plain_trl=True, **known)
    ours = trained_dpo(tmp_path / "b", eval_dataset=pairs(6), **circumstance)
    assert history(ours) and history(ours) == history(theirs)
    assert ours.evaluate()["eval_loss"] == theirs.evaluate()["eval_loss"]
    assert same_logs(ours.state.log_history, theirs.state.log_history)
    assert same_weights(ours, theirs)


@pytest.mark.parametrize("precomputes", [False, True], ids=["adapter off", "precomputed"])
def test_neutral_with_lora(tmp_path, precomputes):
    """Adapters get TRL's bits, whether the reference is the model without them or was computed before."""
    both = [
        trained_dpo(tmp_path / str(plain), plain_trl=plain, precompute_ref_log_probs=precomputes, **lora())
        for plain in (True, False)
    ]
    assert history(both[0]) == history(both[1])
    assert same_weights(*both)


@pytest.mark.slow
def test_neutral_with_models_in_memory(tmp_path):
    """A model and a reference that were made elsewhere, and dropout in training, are TRL's to use."""
    both = [
        trained_dpo(
            tmp_path / str(plain),
            plain_trl=plain,
            model=tiny_model(attention_dropout=0.1),
            ref_model=tiny_model(seed=1),
            disable_dropout=False,
        )
        for plain in (True, False)
    ]
    assert history(both[0]) == history(both[1])


@pytest.mark.slow
def test_neutral_on_conversations_and_implicit_prompts(tmp_path):
    """Rows in TRL's other forms are prepared as TRL prepares them."""

    def turn(role, text):
        return [{"role": role, "content": text}]

    conversations = Dataset.from_list(
        [
            {
                "prompt": turn("user", f"{i}+1"),
                "chosen": turn("assistant", str(i + 1)),
                "rejected": turn("assistant", "no"),
            }
            for i in range(12)
        ]
    )
    implicit = Dataset.from_list([{"chosen": f"{i}+1={i + 1}", "rejected": f"{i}+1={i}."} for i in range(12)])
    for number, rows in enumerate((conversations, implicit)):
        both = [trained_dpo(tmp_path / f"{number}{plain}", rows, plain_trl=plain) for plain in (True, False)]
        assert history(both[0]) == history(both[1])


def test_neutral_on_streams_and_later_evaluation_sets(tmp_path):
    """Rows that are streamed, and a set that is given to `evaluate` only, are TRL's."""
    both = [
        trained_dpo(tmp_path / str(plain), pairs().to_iterable_dataset(), plain_trl=plain) for plain in (True, False)
    ]
    assert history(both[0]) == history(both[1])
    results = [trainer.evaluate(pairs(5))["eval_loss"] for trainer in both]
    assert results[0] == results[1]
    named = {"first": pairs(4), "second": pairs(7)}
    trainers = [
        make_dpo_trainer(tmp_path / f"c{plain}", eval_dataset=named, plain_trl=plain) for plain in (True, False)
    ]
    theirs, ours = (trainer.evaluate() for trainer in trainers)
    assert all(ours[f"eval_{name}_loss"] == theirs[f"eval_{name}_loss"] for name in named)


def test_gradients_are_trls(tmp_path):
    """Not the norm alone: each parameter's gradient."""
    gradients = []
    for plain in (True, False):
        trainer = make_dpo_trainer(tmp_path / str(plain), plain_trl=plain)
        trainer.model.train()
        trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader()))).backward()
        gradients.append({name: parameter.grad for name, parameter in trainer.model.named_parameters()})
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])
