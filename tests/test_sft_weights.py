"""A row's `weight` reaches the loss: as if the row stood that often, however batches are made. float32."""

from collections import Counter

import pytest
from datasets import Dataset
from helpers import history, make_trainer, products, proofs, run_processes, same_weights, trained
from test_sft_invariance import DISTRIBUTED, accelerate, launch_settings, torchrun

from trl_math.errors import DataError, UsageError
from trl_math.models.tiny import tiny_model


OBJECTIVES = {
    "cross-entropy": {},
    "sequence": {"objective": "coverage", "num_attempts": 64},
    "published reduction": {"objective": "coverage", "num_attempts": 64, "coverage_reduction": "mean"},
    "token": {"objective": "coverage", "num_attempts": 1.5, "coverage_level": "token"},
    "step": {"objective": "coverage", "num_attempts": 16, "coverage_level": "step"},
    "step, mean": {
        "objective": "coverage",
        "num_attempts": 16,
        "coverage_level": "step",
        "coverage_reduction": "mean",
    },
    "focal": {"objective": "focal"},
    "tofu": {"objective": "tofu", "objective_params": {"gamma": 2.0, "temperature": 0.7}},
    "gate": {"objective": "gate", "objective_params": {"max_probability": 1e-9}},
    "of one": {"objective": "coverage", "num_attempts": 1},
}
WEIGHTS = [1, 2, 3, 0, 1, 4, 1, 2]


def rows_of(objective):
    return (proofs if objective.get("coverage_level") == "step" else products)(len(WEIGHTS))


def repeated(rows, weights=WEIGHTS):
    return rows.select([index for index, weight in enumerate(weights) for _ in range(weight)])


def weighted(rows, weights=WEIGHTS):
    return rows.add_column("weight", [float(weight) for weight in weights])


def close(first, second, tolerance=1e-6):
    assert len(first) == len(second) > 0
    return all(a == pytest.approx(b, rel=tolerance) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES.keys())
def test_a_whole_weight_is_so_many_rows(tmp_path, objective):
    """Full batches: loss and gradient are those of rows that stand as often as they weigh, step after step."""
    rows = rows_of(objective)
    common = {"max_steps": 3, "max_grad_norm": 0.0, **objective}
    copies = trained(tmp_path / "a", repeated(rows), per_device_train_batch_size=sum(WEIGHTS), **common)
    once = trained(tmp_path / "b", weighted(rows), per_device_train_batch_size=len(WEIGHTS), **common)
    assert close(history(once), history(copies))


@pytest.mark.parametrize("unit", [1e-3, 0.5, 7.0])
def test_only_the_ratios_of_weights_matter(tmp_path, unit):
    """Weights are brought to mean 1, so their unit does not act as a learning rate."""
    rows = products(len(WEIGHTS))
    one = {"per_device_train_batch_size": 4, "max_steps": 2, "learning_rate": 1e-2}
    given = trained(tmp_path / "a", weighted(rows), **one)
    scaled = trained(tmp_path / "b", weighted(rows, [weight * unit for weight in WEIGHTS]), **one)
    assert close(history(given), history(scaled))


def test_a_batch_of_one_row_has_its_weight(tmp_path):
    """Weights act between steps too: a mean within each batch would undo them where a batch is one row."""
    rows = products(2).select([1, 1])
    sizes = {"per_device_train_batch_size": 1, "max_steps": 2, "learning_rate": 0.0, "shuffle_dataset": False}
    trainer = trained(tmp_path, weighted(rows, [1, 3]), train_sampling_strategy="sequential", **sizes)
    (light,), (heavy,) = history(trainer, "loss")
    assert heavy == pytest.approx(3 * light, rel=1e-6)


@pytest.mark.parametrize("name", ["cross-entropy", "published reduction", "step", "focal"])
def test_packed_padded_and_accumulated_are_one(tmp_path, name):
    """A packed row, a padding-free batch and micro-batches of one row are the padded batch."""
    objective = OBJECTIVES[name]
    rows = weighted(rows_of(objective))
    common = {"max_steps": 1, "learning_rate": 0.0, **objective}
    layouts = {
        "padded": {"per_device_train_batch_size": 7},
        "packed": {"per_device_train_batch_size": 1, "packing": True, "max_length": 2048},
        "free": {"per_device_train_batch_size": 7, "padding_free": True, "max_length": None},
        "parts": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 7},
        "uneven": {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 3},
    }
    logs = {name: history(trained(tmp_path / name, rows, **layout, **common)) for name, layout in layouts.items()}
    for name in layouts:
        assert close(logs[name], logs["padded"], 1e-5), name


@pytest.mark.parametrize(("packing", "mode"), [(False, "keep_start"), (False, "keep_end"), (True, "keep_start")])
def test_truncated_rows(tmp_path, packing, mode):
    """What truncation leaves of a row counts, in both data sets."""
    rows = products(len(WEIGHTS))
    common = {"max_length": 8, "max_truncated_fraction": 1.0, "truncation_mode": mode, "max_steps": 1}
    if packing:
        common |= {"packing": True}
    copies = trained(tmp_path / "a", repeated(rows), per_device_train_batch_size=sum(WEIGHTS), **common)
    once = trained(tmp_path / "b", weighted(rows), per_device_train_batch_size=len(WEIGHTS), **common)
    assert close(history(once), history(copies))


@pytest.mark.parametrize("strategy", ["wrapped", "bfd_split"])
def test_packing_that_cuts_rows(tmp_path, strategy):
    """Every piece of a row that is cut in two has the row's weight."""
    rows = weighted(products(8), [1, 3] * 4)
    whole = make_trainer(tmp_path / "a", rows).train_dataset
    cut = make_trainer(tmp_path / "b", rows, packing=True, packing_strategy=strategy, max_length=11).train_dataset

    def tokens(dataset):
        columns = [[value for row in dataset[name] for value in row] for name in ("input_ids", "token_weights")]
        return Counter(zip(*columns, strict=True))

    assert tokens(cut) == tokens(whole)
    light, heavy = sorted({weight for _, weight in tokens(whole)})
    assert heavy == pytest.approx(3 * light, rel=1e-6)


@pytest.mark.parametrize("weights", [[1] * 8, [0.3] * 8, [0, 0, 2, 2, 2, 2, 0, 2]])
def test_equal_weights_are_neutral(tmp_path, weights):
    """Where rows count the same, loss, gradient and weights are TRL's bits (on the rows that count at all)."""
    rows = products(8)
    kept = rows.select([index for index, weight in enumerate(weights) if weight])
    theirs = trained(tmp_path / "a", kept, plain_trl=True)
    ours = trained(tmp_path / "b", weighted(rows, weights))
    assert history(ours) == history(theirs)
    assert same_weights(ours, theirs)


def test_resume(tmp_path):
    """A stopped run goes on with its weights, bit for bit."""
    rows = weighted(products(len(WEIGHTS)))
    common = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "per_device_train_batch_size": 2}
    whole = trained(tmp_path / "a", rows, **common)
    resumed = make_trainer(tmp_path / "b", rows, **common)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    assert history(resumed) == history(whole)
    assert same_weights(whole, resumed)


def test_evaluation_rows_have_the_scale_of_training_rows(tmp_path):
    """The same weight counts the same in both; without weights, and in a neutral run, evaluation is TRL's."""
    rows, held_out = products(8), products(16).select(range(8, 12))
    common = {"per_device_eval_batch_size": 4}
    plain = make_trainer(tmp_path / "a", rows, eval_dataset=held_out, **common).evaluate()["eval_loss"]
    trainer = make_trainer(
        tmp_path / "b",
        weighted(rows, [1, 3] * 4),
        eval_dataset={"light": weighted(held_out, [1] * 4), "heavy": weighted(held_out, [3] * 4), "none": held_out},
        **common,
    )
    losses = trainer.evaluate()
    assert losses["eval_heavy_loss"] == pytest.approx(3 * losses["eval_light_loss"], rel=1e-6)
    assert losses["eval_none_loss"] == plain
    assert trainer.evaluate(weighted(held_out, [3] * 4))["eval_loss"] == losses["eval_heavy_loss"]
    own = make_trainer(tmp_path / "c", rows, eval_dataset=weighted(held_out, [1, 2, 1, 2]), **common)
    copies = make_trainer(
        tmp_path / "d", rows, eval_dataset=repeated(held_out, [1, 2, 1, 2]), per_device_eval_batch_size=6
    )
    assert own.evaluate()["eval_loss"] == pytest.approx(copies.evaluate()["eval_loss"], rel=1e-6)


def test_weights_with_screening(tmp_path):
    """Rows that are screened by their coverage keep their weights."""
    screened = {
        "objective": "coverage",
        "num_attempts": 4,
        "min_coverage_weight": 1e-6,
        "per_device_train_batch_size": 8,
    }
    rows = products(8)
    copies = trained(tmp_path / "a", repeated(rows, [1, 2] * 4), **(screened | {"per_device_train_batch_size": 12}))
    once = trained(tmp_path / "b", weighted(rows, [1, 2] * 4), **screened)
    assert close(history(once), history(copies))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "port", "is_zero3"),
    [("cross-entropy", 29731, False), ("published reduction", 29733, False), ("published reduction", 29735, True)],
)
def test_two_processes(tmp_path, name, port, is_zero3):
    """Two processes with half the batch each, also under ZeRO-3, are one process with all of it."""
    rows = weighted(products(24), [1 + index % 4 for index in range(24)])
    alone = trained(tmp_path / "a", rows, per_device_train_batch_size=4, **OBJECTIVES[name])
    request = {
        "settings": {"per_device_train_batch_size": 2, **OBJECTIVES[name]},
        "columns": {"weight": list(rows["weight"])},
    }
    launcher = accelerate(launch_settings(tmp_path), port) if is_zero3 else torchrun(port)
    together = run_processes(DISTRIBUTED, launcher, tmp_path / "b", port, **request)
    assert together["num_processes"] == 2
    assert ("DEEPSPEED" in together["distributed"]) == is_zero3
    assert close(history(alone), [tuple(row) for row in together["history"]], 1e-5)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.0] * 4, "The weights of all 4 rows of the train data set are 0"),
        ([1.0, -1.0, 2.0, -3.0], "2 of 4 rows of the train data set have a weight that is no finite number from 0"),
        ([1.0, float("nan"), 2.0, 1.0], "the first is row 1 with nan"),
        ([1.0, 1.0, None, 1.0], "the first is row 2 with None"),
        ([1.0, 1.0, 1.0, float("inf")], "the first is row 3 with inf"),
        (["1", "2", "3", "4"], "4 of 4 rows"),
    ],
)
def test_weights_that_are_none(tmp_path, weights, message):
    """Weights that cannot be are counted, and the first is named, before a model is loaded."""
    with pytest.raises(DataError) as error:
        make_trainer(tmp_path, products(4).add_column("weight", weights), model="no/such-model")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_liger_kernel": True}, "use_liger_kernel replaces the loss that The column 'weight' would compute"),
        ({"loss_type": "dft"}, "loss_type: dft replaces the loss"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor replaces the loss"),
        ({"data_collator": lambda rows: rows}, "A custom data_collator"),
        ({"dataset_kwargs": {"skip_prepare_dataset": True}}, "no stream, no raw rows"),
    ],
)
def test_what_does_not_go_with_weights(tmp_path, changes, message):
    """Options whose loss is TRL's own are refused where rows weigh differently, and only there."""
    with pytest.raises(UsageError) as error:
        make_trainer(tmp_path, weighted(products(2), [1, 2]), model=tiny_model(), **changes)
    assert message in str(error.value)
    if "loss_type" in changes:
        make_trainer(tmp_path, weighted(products(2), [2, 2]), **changes)


def test_a_stream_has_no_weights(tmp_path):
    """The mean of a stream's weights is not known."""
    stream = Dataset.to_iterable_dataset(weighted(products(2), [1, 2]))
    with pytest.raises(DataError, match="no stream"):
        make_trainer(tmp_path, stream)
