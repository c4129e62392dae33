"""What DPO relies on upstream: private names with their parameters, and the facts that our code takes for granted.

Those of SFT are in `test_architecture`.
"""

import ast
import dataclasses
import importlib
import inspect
import re
import textwrap

import pytest


SEAMS = {
    "trl.trainer.dpo_trainer:DPOTrainer._prepare_dataset": [
        "self",
        "dataset",
        "processing_class",
        "args",
        "dataset_name",
    ],
    "trl.trainer.dpo_trainer:DPOTrainer._precompute_ref_logps": ["self", "dataset", "name", "batch_size"],
    "trl.trainer.dpo_trainer:DPOTrainer._set_signature_columns_if_needed": ["self"],
    "trl.trainer.dpo_trainer:DPOTrainer._save_checkpoint": ["self", "model", "trial"],
    "trl.trainer.dpo_trainer:DPOTrainer.compute_ref_log_probs": ["self", "model", "inputs"],
    "trl.trainer.dpo_trainer:DPOTrainer.compute_loss": [
        "self",
        "model",
        "inputs",
        "return_outputs",
        "num_items_in_batch",
    ],
    "transformers:Trainer._init_training_state": [
        "self",
        "max_steps",
        "num_update_steps_per_epoch",
        "num_train_epochs",
        "resume_from_checkpoint",
        "trial",
    ],
    "trl.models:prepare_deepspeed": ["model", "accelerator"],
    "trl.trainer.utils:hash_module": ["module"],
}


@pytest.mark.parametrize("seam", SEAMS, ids=lambda seam: seam.split(":")[1])
def test_names_and_parameters(seam):
    """Every private name of TRL that DPO calls or overrides exists, with the parameters we expect."""
    module, _, path = seam.partition(":")
    value = importlib.import_module(module)
    for part in path.split("."):
        value = getattr(value, part)
    assert list(inspect.signature(value).parameters) == SEAMS[seam]


def source(name):
    from trl import DPOTrainer

    return textwrap.dedent(inspect.getsource(getattr(DPOTrainer, name)))


def attributes(name):
    """The attributes of `self` that a method touches."""
    return {
        node.attr
        for node in ast.walk(ast.parse(source(name)))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }


def test_row_preparation_reads_what_the_stand_in_has():
    """TRL's `_prepare_dataset` needs a trainer for its tokenizer only."""
    assert attributes("_prepare_dataset") == {"_tokenizer"}


def test_the_loss_reads_the_attribute_that_we_set():
    """`precompute_ref_logps` decides per batch whether the references are in it, `_precompute_engine` is shared."""
    assert {"precompute_ref_logps", "ref_model", "model", "beta", "loss_types"} <= attributes("_compute_loss")
    assert "_precompute_engine" in attributes("_precompute_ref_logps")
    assert "self._precompute_engine = None" in source("__init__")


def test_the_loss_is_a_mean_over_a_micro_batch_that_trainer_divides():
    """Our denominators are means over micro-batches because Trainer divides by their number."""
    from trl import DPOTrainer

    assert DPOTrainer.loss_is_scaled_for_ga is False
    assert "per_sequence_loss.mean() * loss_weight" in source("_compute_loss")


def test_loss_types_are_the_known_ones():
    """A type that TRL adds is neither refused as unknown nor taken for one that we compute."""
    from trl_math.trainers.dpo_objective import LOSS_TYPES, TOKEN_ANCHOR, TRL_ONLY

    theirs = set(re.findall(r'loss_type == "(\w+)"', source("_compute_loss")))
    assert theirs == {*LOSS_TYPES, TOKEN_ANCHOR, *TRL_ONLY}


def test_collator_fields():
    """Our collator is built from TRL's own fields."""
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    from trl_math.trainers.pair_collator import PairCollator

    names = {field.name for field in dataclasses.fields(DataCollatorForPreference)}
    assert names == {field.name for field in dataclasses.fields(PairCollator)}
    given = set(re.findall(r"(\w+)=", source("__init__").split("DataCollatorForPreference(")[1].split(")\n")[0]))
    assert given == {"pad_token_id", "max_length", "truncation_mode", "pad_to_multiple_of"}


def test_rows_with_too_long_prompts_are_dropped_as_we_drop_them():
    """TRL keeps rows whose prompt is shorter than `max_length`; ours counts them first and keeps the same."""
    assert 'len(example["prompt_ids"]) < args.max_length' in source("_prepare_dataset")


def test_fused_output_has_the_fields_we_read():
    from trl.trainer.utils import FusedCausalLMOutput

    assert {"log_probs", "aux_loss"} <= {field.name for field in dataclasses.fields(FusedCausalLMOutput)}


@pytest.mark.parametrize("name", ["SFTTrainer", "DPOTrainer"])
def test_tokens_are_counted_where_we_go_on_counting(name):
    """The count begins at 0 in `__init__`, is what is logged, and is restored by nobody but us."""
    import trl

    text = inspect.getsource(getattr(trl, name))
    assert "self._total_train_tokens = 0" in inspect.getsource(getattr(trl, name).__init__)
    assert text.count("self._total_train_tokens +=") == 1
    assert '["num_tokens"] = [self._total_train_tokens]' in text
    assert text.count("_total_train_tokens") == 3
