"""At neutral settings MathSFTTrainer is TRL's SFTTrainer, bit for bit; N = 1 is neutral too."""

import pytest
from helpers import history, make_trainer, products, same_weights, trained


NEUTRAL = {
    "defaults": {},
    "coverage of one": {"objective": "coverage", "num_attempts": 1},
    "coverage of one token": {"objective": "coverage", "num_attempts": 1, "coverage_level": "token"},
    "cross-entropy with coverage in the logs": {"num_attempts": 64},
}
CIRCUMSTANCES = {
    "plain": {},
    "accumulation": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3},
    "checkpointing": {"gradient_checkpointing": True},
    "bf16": {"bf16": True},
    "packed": {"packing": True, "max_length": 64, "per_device_train_batch_size": 1},
    "padding-free": {"padding_free": True, "max_length": None},
    "shuffled and truncated": {"shuffle_dataset": True, "max_length": 10, "max_truncated_fraction": 1.0},
}


def lora():
    from peft import LoraConfig

    return {"peft_config": LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.1)}


@pytest.mark.parametrize("neutral", NEUTRAL.values(), ids=NEUTRAL.keys())
def test_neutral_objectives_train_as_trl(tmp_path, neutral):
    """Loss, gradient norm and final weights are TRL's own bits."""
    theirs, ours = trained(tmp_path / "a", plain_trl=True), trained(tmp_path / "b", **neutral)
    assert history(ours) == history(theirs)
    assert same_weights(ours, theirs)


@pytest.mark.parametrize("circumstance", CIRCUMSTANCES.values(), ids=CIRCUMSTANCES.keys())
@pytest.mark.parametrize("neutral", [NEUTRAL["defaults"], NEUTRAL["coverage of one"]], ids=["defaults", "N=1"])
def test_neutral_under_every_circumstance(tmp_path, neutral, circumstance):
    """The same holds under accumulation, checkpointing, bf16, packing and truncation."""
    theirs, ours = trained(tmp_path / "a", plain_trl=True, **_known(circumstance)), None
    ours = trained(tmp_path / "b", **neutral, **circumstance)
    assert history(ours) == history(theirs)
    assert same_weights(ours, theirs)


def test_neutral_with_lora_and_dropout(tmp_path):
    """Adapters get TRL's bits too: the random stream is consumed alike."""
    theirs, ours = trained(tmp_path / "a", plain_trl=True, **lora()), trained(tmp_path / "b", **lora())
    assert history(ours) == history(theirs)
    assert same_weights(ours, theirs)


@pytest.mark.parametrize("neutral", [NEUTRAL["defaults"], NEUTRAL["coverage of one"]], ids=["defaults", "N=1"])
def test_neutral_evaluation(tmp_path, neutral):
    """Evaluation, of the set given at construction and of a raw one given later, is TRL's."""
    both = [
        make_trainer(tmp_path / name, eval_dataset=products(10), plain_trl=is_plain, **({} if is_plain else neutral))
        for name, is_plain in (("a", True), ("b", False))
    ]
    for given in (None, products(7)):
        theirs, ours = [trainer.evaluate(given)["eval_loss"] for trainer in both]
        assert ours == theirs


def test_neutral_on_conversations_and_text(tmp_path):
    """Row formats other than prompt and completion are prepared as TRL prepares them."""
    from datasets import Dataset

    messages = [
        [{"role": "user", "content": f"{i}+1"}, {"role": "assistant", "content": str(i + 1)}] for i in range(12)
    ]
    for dataset in (Dataset.from_dict({"messages": messages}), Dataset.from_dict({"text": ["1+1=2", "2+2=4"] * 6})):
        theirs, ours = trained(tmp_path / "a", dataset, plain_trl=True), trained(tmp_path / "b", dataset)
        assert history(ours) == history(theirs)


def _known(circumstance):
    return {key: value for key, value in circumstance.items() if key != "max_truncated_fraction"}


def test_neutral_with_a_formatting_function_and_a_stream(tmp_path):
    """Columns of any name with a formatting function, rows in memory or streamed, are TRL's to format."""
    from datasets import Dataset

    rows = Dataset.from_dict({"q": [f"{i}+1" for i in range(16)], "a": [str(i + 1) for i in range(16)]})
    for dataset in (rows, rows.to_iterable_dataset()):
        both = [
            trained(
                tmp_path / str(is_plain), dataset, plain_trl=is_plain, formatting_func=lambda r: r["q"] + "=" + r["a"]
            )
            for is_plain in (True, False)
        ]
        assert history(both[0]) == history(both[1])
