"""The house rules that a machine can check: who imports whom, what is public, and what we rely on upstream."""

import ast
import dataclasses
import inspect
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import trl_math


PACKAGE = Path(trl_math.__file__).parent

# Room -> level. A room may import rooms of its own level and below; see AGENTS.md.
LEVELS = {
    "errors": 0,
    "optional": 0,
    "records": 0,
    "wording": 0,
    "files": 0,
    "run_folder": 0,
    "wilson": 0,
    "losses": 1,
    "grading": 1,
    "models": 2,
    "data": 2,
    "generation": 2,
    "reporting": 3,
    "evaluation": 3,
    "contamination": 3,
    "trainers": 4,
    "recipes": 5,
    "pipeline": 5,
    "plan": 5,
    "seq2seq_shape": 5,
    "launch": 5,
    "share": 5,
    "generate_plan": 5,
    "evaluate_plan": 5,
    "preflight": 5,
    "dry_run": 5,
    "smoke": 5,
    "doctor": 5,
    "demo": 5,
    "cli": 5,
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path):
    """Yield (module, is inside a function) for every import in a file."""
    tree = ast.parse(path.read_text())
    inner = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f) if n is not f}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in inner) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names = [node.module]
            if node.module == "trl_math":
                names = [f"trl_math.{alias.name}" for alias in node.names if alias.name not in trl_math.__all__]
            yield from ((name, id(node) in inner) for name in names)


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    """No file imports a room above its own, not even inside a function."""
    if room(path) == "__init__":
        return
    for module, _ in imports(path):
        if module.startswith("trl_math."):
            target = module.split(".")[1]
            assert LEVELS[target] <= LEVELS[room(path)], f"{path.name} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_keep_to_their_packages(path):
    """Only trainers know TRL's trainers, only grading knows math_verify, and data knows no torch."""
    for module, _ in imports(path):
        package = module.split(".")[0]
        if package == "trl":
            assert LEVELS[room(path)] >= 4, f"{path} imports trl"
        if package == "math_verify":
            assert room(path) == "grading"
        if package in ("torch", "transformers", "trl"):
            assert room(path) not in ("data", "grading", "reporting"), f"{path} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_readable(path):
    """No file over about 400 lines, no function over about 60."""
    text = path.read_text()
    assert text.count("\n") <= 410
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 65, f"{path.name}:{node.name}"


def test_no_pickle_and_no_machine():
    """Nothing of ours is pickled, runs remote code by default, or names this machine."""
    for path in FILES:
        text = path.read_text()
        assert "import pickle" not in text
        assert "trust_remote_code=True" not in text


def test_public_names_exist():
    """What `trl_math` promises can be imported, and every room's `__all__` is true."""
    for name in trl_math.__all__:
        assert getattr(trl_math, name) is not None
    import importlib

    for init in PACKAGE.glob("*/__init__.py"):
        module = importlib.import_module(f"trl_math.{init.parent.name}")
        for name in getattr(module, "__all__", ()):
            assert getattr(module, name) is not None, f"{module.__name__}.{name}"
    assert set(trl_math.__all__) == {
        "GenerationEvalCallback",
        "MathDPOConfig",
        "MathDPOTrainer",
        "MathSFTConfig",
        "MathSFTTrainer",
        "MathSeq2SeqConfig",
        "MathSeq2SeqTrainer",
        "__version__",
        "coverage_nll",
        "coverage_weight",
    }


def test_import_is_cheap():
    """`import trl_math`, its command line and its recipe reader load neither torch nor transformers."""
    code = (
        "import sys, trl_math, trl_math.cli.main, trl_math.recipes, trl_math.launch, trl_math.run_folder;"
        "assert not {'torch', 'transformers', 'trl', 'datasets', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Private or fragile upstream names -> parameters that we rely on.
SEAMS = {
    "trl.trainer.sft_trainer:SFTTrainer._prepare_dataset": [
        "self",
        "dataset",
        "processing_class",
        "args",
        "packing",
        "formatting_func",
        "dataset_name",
    ],
    "trl.trainer.sft_trainer:SFTTrainer._set_signature_columns_if_needed": ["self"],
    "trl.trainer.sft_trainer:SFTTrainer.compute_loss": [
        "self",
        "model",
        "inputs",
        "return_outputs",
        "num_items_in_batch",
    ],
    "trl.trainer.sft_trainer:SFTTrainer._save_checkpoint": ["self", "model", "trial"],
    "trl.trainer:add_fused_lm_head": ["model", "temperature", "cast_lm_head_to_fp32", "outputs"],
    "trl:pack_dataset": ["dataset", "seq_length", "strategy", "map_kwargs"],
    "trl.chat_template_utils:get_training_chat_template": ["processing_class"],
    "trl.chat_template_utils:has_generation_markers": ["chat_template"],
    "trl.trainer.utils:create_model_from_path": ["model_id", "architecture", "kwargs"],
    "trl.trainer.base_trainer:_BaseTrainer.create_model_card": ["self", "model_name", "dataset_name", "tags"],
    "transformers:Seq2SeqTrainer._set_signature_columns_if_needed": ["self"],
    "transformers:Seq2SeqTrainer._save_checkpoint": ["self", "model", "trial"],
    "transformers:Trainer.get_batch_samples": ["self", "epoch_iterator", "num_batches", "device"],
    "transformers:Trainer._prepare_inputs": ["self", "inputs"],
    "transformers:Trainer.set_initial_training_values": ["self", "args", "dataloader"],
    "transformers:Trainer._init_training_state": [
        "self",
        "max_steps",
        "num_update_steps_per_epoch",
        "num_train_epochs",
        "resume_from_checkpoint",
        "trial",
    ],
    "transformers:Trainer._get_output_dir": ["self", "trial"],
    "transformers:Trainer.get_tp_size": ["self"],
    "datasets:Dataset.__init__": ["self", "arrow_table", "info", "split", "indices_table", "fingerprint"],
}


@pytest.mark.parametrize("seam", SEAMS, ids=lambda seam: seam.split(":")[1])
def test_upstream_seams(seam):
    """Every private name of TRL and transformers that we call still exists, with the parameters we expect."""
    import importlib

    module, _, path = seam.partition(":")
    value = importlib.import_module(module)
    for part in path.split("."):
        value = getattr(value, part)
    parameters = list(inspect.signature(value).parameters)
    assert parameters[: len(SEAMS[seam])] == SEAMS[seam] or set(SEAMS[seam]) <= set(parameters)


def test_a_data_set_says_what_was_selected_of_it():
    """Token files rely on both: rows that are left out have indices, and a fingerprint that is given stays."""
    import datasets
    import pyarrow as pa

    rows = datasets.Dataset(datasets.table.InMemoryTable(pa.table({"row": [1, 2, 3]})), fingerprint="mine")
    assert rows._fingerprint == "mine" and rows._indices is None
    assert rows.select([2, 0])._indices is not None and rows.select([2, 0])._fingerprint != "mine"


def test_fused_output_has_the_fields_we_read():
    from trl.trainer.utils import FusedCausalLMOutput

    assert {"log_probs", "label_mask", "entropy", "aux_loss"} <= {
        f.name for f in dataclasses.fields(FusedCausalLMOutput)
    }


def test_row_preparation_reads_what_the_stand_in_has():
    """TRL's `_prepare_dataset` touches only those attributes of a trainer that our stand-in has."""
    from trl import SFTTrainer

    tree = ast.parse(textwrap.dedent(inspect.getsource(SFTTrainer._prepare_dataset)))
    touched = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }
    assert touched == {"_tokenizer", "completion_only_loss", "chat_template"}


def test_collator_fields():
    """The carrying collator is built from TRL's own fields."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from trl_math.trainers.collator import CarryingCollator

    theirs = {field.name for field in dataclasses.fields(DataCollatorForLanguageModeling)}
    assert {field.name for field in dataclasses.fields(CarryingCollator)} == theirs | {"carried"}
