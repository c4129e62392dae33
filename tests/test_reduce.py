"""Segments of a batch and their sums: expected tensors written out by hand, one comment a row."""

import pytest
import torch
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from trl_math.losses import reduce_sum, segment_ids, segment_sum
from trl_math.trainers.segments import STEP_IDS, Segments, batch_ids, count_segments, sequence_starts


def bits(*rows: str) -> torch.Tensor:
    """Read rows of 0 and 1."""
    return torch.tensor([[character == "1" for character in row] for row in rows])


# ---- segment_ids ----


def test_ids_count_up_through_the_batch() -> None:
    starts = bits(
        "100100",  # two segments of three
        "111000",  # two of one, one of four
        "100000",  # one
    )
    expected = [
        [0, 0, 0, 1, 1, 1],
        [2, 3, 4, 4, 4, 4],
        [5, 5, 5, 5, 5, 5],
    ]
    assert segment_ids(starts).tolist() == expected


def test_every_row_begins_a_segment_also_when_it_does_not_say_so() -> None:
    starts = bits(
        "0010",  # begins one all the same
        "1000",  # says so
        "0000",  # nothing marked at all
    )
    kept = starts.clone()
    expected = [
        [0, 0, 1, 1],
        [2, 2, 2, 2],
        [3, 3, 3, 3],
    ]
    assert segment_ids(starts).tolist() == expected
    assert torch.equal(starts, kept)  # the caller's tensor is not written to


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 7), (5, 1)])
def test_ids_of_narrow_batches(batch: int, length: int) -> None:
    everywhere = segment_ids(torch.ones(batch, length, dtype=torch.bool))
    assert everywhere.flatten().tolist() == list(range(batch * length))
    nowhere = segment_ids(torch.zeros(batch, length, dtype=torch.bool))
    assert nowhere[:, -1].tolist() == list(range(batch))


def test_ids_of_a_non_contiguous_mask() -> None:
    starts = bits("110", "000").t()  # columns become rows: "10", "10", "00"
    assert segment_ids(starts).tolist() == [[0, 0], [1, 1], [2, 2]]


# ---- segment_sum ----


def test_sums_and_empty_places() -> None:
    values = torch.tensor(
        [
            [1.0, 2.0, 4.0],  # segments 0, 0, 1
            [8.0, 16.0, 32.0],  # segments 2, 2, 2
        ]
    )
    ids = torch.tensor([[0, 0, 1], [2, 2, 2]])
    sums = segment_sum(values, ids)
    assert sums.tolist() == [3.0, 4.0, 56.0, 0.0, 0.0, 0.0]  # B * T places, the last three never occur
    assert sums.dtype == torch.float64


def test_sums_of_a_mask_are_counts() -> None:
    assert segment_sum(bits("101", "011"), torch.tensor([[0, 0, 1], [2, 2, 2]])).tolist() == [1, 1, 2, 0, 0, 0]


def test_short_floats_are_added_up_in_float64() -> None:
    values = torch.full((1, 4096), 0.1, dtype=torch.bfloat16)
    total = segment_sum(values, torch.zeros(1, 4096, dtype=torch.long))[0]
    assert total.item() == pytest.approx(4096 * values[0, 0].item(), rel=1e-12)


def test_sum_passes_its_gradient_to_every_token() -> None:
    values = torch.zeros(2, 3, requires_grad=True)
    sums = segment_sum(values, torch.tensor([[0, 0, 1], [2, 2, 2]]))
    (sums * torch.tensor([1.0, 10.0, 100.0, 5.0, 5.0, 5.0])).sum().backward()
    expected = [
        [1.0, 1.0, 10.0],  # segments 0, 0, 1
        [100.0, 100.0, 100.0],  # segment 2
    ]
    assert values.grad.tolist() == expected


# ---- reduce_sum ----


@pytest.mark.parametrize("denominator", [4, torch.tensor(4), torch.tensor(4.0)])
def test_reduces_by_the_given_denominator(denominator: int | torch.Tensor) -> None:
    assert reduce_sum(torch.tensor([1.0, 2.0, 3.0]), denominator).item() == 1.5


@pytest.mark.parametrize("denominator", [0, torch.tensor(0)])
def test_nothing_to_train_on_is_a_zero_with_a_gradient(denominator: int | torch.Tensor) -> None:
    losses = torch.zeros(2, 2, requires_grad=True)
    loss = reduce_sum(losses, denominator)
    loss.backward()
    assert loss.item() == 0
    assert losses.grad.isfinite().all()


def test_reduction_does_not_depend_on_how_a_step_is_cut_up() -> None:
    losses = torch.rand(8, 5, dtype=torch.float64)
    whole = reduce_sum(losses, 40)
    parts = sum(reduce_sum(part, 40) for part in losses.split([1, 4, 3]))
    torch.testing.assert_close(whole, parts, rtol=1e-14, atol=0)


def test_reduction_keeps_trl_dtype() -> None:
    assert reduce_sum(torch.ones(3), torch.tensor(2)).dtype == torch.float32
    assert reduce_sum(torch.ones(3, dtype=torch.bfloat16), 2).dtype == torch.bfloat16


# ---- Batches ----


def batch(*rows: str, padding_free: bool = False, steps: bool = False, **options: int) -> dict[str, torch.Tensor]:
    """Collate rows as TRL does.

    A row is one character a token: `p` of the prompt (not trained), a digit for a trained token (with `steps`, of that
    step); `|` stands between the sequences of a packed row.
    """
    examples, step_ids = [], []
    for row in rows:
        tokens = row.replace("|", "")
        examples.append(
            {
                "input_ids": list(range(1, len(tokens) + 1)),
                "labels": [-100 if token == "p" else int(token) for token in tokens],
                "seq_lengths": [len(part) for part in row.split("|")],
            }
        )
        step_ids.append(torch.tensor([0 if token == "p" else int(token) for token in tokens]))
    collator = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=padding_free, **options)
    inputs = collator.torch_call(examples)
    if steps:
        if padding_free:
            step_ids = [torch.cat(step_ids)]
        numbers = torch.nn.utils.rnn.pad_sequence(step_ids, batch_first=True)
        inputs[STEP_IDS] = torch.nn.functional.pad(numbers, (0, inputs["input_ids"].shape[1] - numbers.shape[1]))
    return inputs


def segments_of(inputs: dict[str, torch.Tensor], level: str = "sequence") -> Segments:
    """Return the segments of a batch whose k-th target position (row by row) has log-probability -2^-k."""
    mask = inputs["labels"][:, 1:] != -100
    log_probs = -(2.0 ** -torch.arange(mask.numel()).view_as(mask)) * mask
    return Segments(log_probs, mask, *batch_ids(inputs, level, inputs.get(STEP_IDS)))


def test_starts_of_padded_rows() -> None:
    starts = sequence_starts(batch("pp11", "p1", "111"))
    expected = [
        [True, False, False, False],  # a row of four
        [True, False, False, False],  # a row of two, then padding
        [True, False, False, False],  # all trained
    ]
    assert starts.tolist() == expected


def test_starts_of_packed_rows() -> None:
    starts = sequence_starts(batch("p1|p11", "11", padding_free=True))
    # one row: two sequences packed in the first, then the second row's only one
    assert starts.tolist() == [[True, False, True, False, False, True, False]]


def test_positions_beside_an_attention_mask_are_padded_rows() -> None:
    inputs = batch("pp11", "p1", return_position_ids=True)
    assert inputs["position_ids"].tolist() == [[0, 1, 2, 3], [0, 1, 0, 0]]  # padding restarts nothing
    assert sequence_starts(inputs).sum(dim=1).tolist() == [1, 1]


def test_padded_sequences() -> None:
    inputs = batch("pp11", "p1", "1111")
    ids, sequence_ids = batch_ids(inputs, "sequence", None)
    expected = [
        [0, 0, 0],  # targets of "p11"
        [1, 1, 1],  # of "1", then two of padding
        [2, 2, 2],  # of "111"; a row's first token is no target
    ]
    assert ids.tolist() == expected
    assert sequence_ids.tolist() == expected
    segments = segments_of(inputs)
    assert segments.num_tokens.tolist() == [2, 1, 3, *[0] * 6]
    assert segments.is_real.tolist() == [True] * 3 + [False] * 6
    # k-th target position: -2^-k; trained are 1, 2 | 3 | 6, 7, 8
    assert segments.logps.tolist() == [-0.75, -0.125, -(2**-6 + 2**-7 + 2**-8), *[0] * 6]
    assert count_segments(inputs, "sequence").item() == 3


def test_padding_free_sequences() -> None:
    inputs = batch("pp11", "p1", "1111", padding_free=True)
    ids, sequence_ids = batch_ids(inputs, "sequence", None)
    # "pp11" has three targets; from then on a sequence's first token opens it, itself untrained
    expected = [[0, 0, 0, 1, 1, 2, 2, 2, 2]]
    assert ids.tolist() == expected
    assert sequence_ids.tolist() == expected
    segments = segments_of(inputs)
    assert segments.num_tokens.tolist() == [2, 1, 3, *[0] * 6]
    # trained target positions: 1, 2 | 4 | 6, 7, 8
    assert segments.logps.tolist() == [-0.75, -0.0625, -(2**-6 + 2**-7 + 2**-8), *[0] * 6]
    assert count_segments(inputs, "sequence").item() == 3


def test_packed_is_padding_free() -> None:
    packed, free = batch("pp11|p1", "1111", padding_free=True), batch("pp11", "p1", "1111", padding_free=True)
    for level in ("sequence", "token"):
        assert torch.equal(segments_of(packed, level).logps, segments_of(free, level).logps)


def test_padding_at_the_end_of_a_padding_free_row_is_no_segment() -> None:
    inputs = batch("pp11", "p1", padding_free=True, pad_to_multiple_of=4)
    assert inputs["input_ids"].shape == (1, 8)
    # the two padded positions restart at 0, so each opens an empty segment
    assert batch_ids(inputs, "sequence", None)[0].tolist() == [[0, 0, 0, 1, 1, 2, 3]]
    assert segments_of(inputs).num_tokens.tolist() == [2, 1, 0, 0, 0, 0, 0]
    assert count_segments(inputs, "sequence").item() == 2


def test_tokens() -> None:
    inputs = batch("p11", "1")
    ids, sequence_ids = batch_ids(inputs, "token", None)
    assert ids.tolist() == [
        [0, 1],  # both trained
        [2, 3],  # padding
    ]
    assert sequence_ids.tolist() == [[0, 0], [1, 1]]
    segments = segments_of(inputs, "token")
    assert segments.logps.tolist() == [-1, -0.5, 0, 0]
    assert segments.is_real.tolist() == [True, True, False, False]
    assert segments.siblings().tolist() == [2, 2, 1, 1]  # at least 1, also where nothing is trained
    assert count_segments(inputs, "token").item() == 2


def test_padded_steps() -> None:
    inputs = batch("pp1122", "p123", "112", steps=True)
    ids, sequence_ids = batch_ids(inputs, "step", inputs[STEP_IDS])
    expected = [
        [0, 1, 1, 2, 2],  # prompt, step 1, step 2
        [3, 4, 5, 6, 6],  # the row's first target opens step 1: one new id, not two; steps 2 and 3, padding
        [7, 8, 9, 9, 9],  # no prompt: rest of step 1, step 2, padding
    ]
    assert ids.tolist() == expected
    assert sequence_ids.tolist() == [[0] * 5, [1] * 5, [2] * 5]
    segments = segments_of(inputs, "step")
    assert segments.num_tokens[:10].tolist() == [0, 2, 2, 1, 1, 1, 0, 1, 1, 0]
    assert segments.siblings()[:10].tolist() == [2, 2, 2, 3, 3, 3, 3, 2, 2, 2]
    assert count_segments(inputs, "step").item() == 7


def test_packed_steps() -> None:
    inputs = batch("pp1122|p123", "112", padding_free=True, steps=True)
    ids, sequence_ids = batch_ids(inputs, "step", inputs[STEP_IDS])
    # targets of "pp1122", then of "p123" and "112", each with its own first token, which is not trained
    assert ids.tolist() == [[0, 1, 1, 2, 2, 3, 4, 5, 6, 7, 7, 8]]
    assert sequence_ids.tolist() == [[0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2]]
    segments = segments_of(inputs, "step")
    assert segments.num_tokens.tolist() == [0, 2, 2, 0, 1, 1, 1, 1, 1, 0, 0, 0]
    assert segments.siblings()[:9].tolist() == [2, 2, 2, 3, 3, 3, 3, 2, 2]
    assert count_segments(inputs, "step").item() == 7


def test_one_step_that_goes_on_in_the_next_sequence_is_two() -> None:
    # both sequences are all step 1: only the restart of positions tells them apart
    inputs = batch("111|111", padding_free=True, steps=True)
    assert batch_ids(inputs, "step", inputs[STEP_IDS])[0].tolist() == [[0, 0, 1, 1, 1]]
    assert segments_of(inputs, "step").num_tokens.tolist() == [2, 2, 0, 0, 0]


def test_a_step_that_comes_back_is_a_new_segment() -> None:
    inputs = batch("p1121", steps=True)
    assert batch_ids(inputs, "step", inputs[STEP_IDS])[0].tolist() == [[0, 0, 1, 2]]


# ---- Segments ----


def test_spread_gives_every_token_its_segments_value() -> None:
    segments = segments_of(batch("pp1122", "p1", steps=True), "step")
    per_segment = torch.tensor([0.0, 10.0, 20.0, 30.0, 40.0, *[99.0] * 5])
    expected = [
        [0.0, 10.0, 10.0, 20.0, 20.0],  # prompt, step 1, step 2
        [30.0, 40.0, 40.0, 40.0, 40.0],  # step 1, padding
    ]
    assert segments.spread(per_segment).tolist() == expected


def test_largest_value_of_a_sequence() -> None:
    segments = segments_of(batch("pp1122", "p123", "pp", steps=True), "step")
    # ids: 0 prompt, 1, 2 | 3, 4, 5, 6 padding | 7 nothing trained
    per_segment = torch.tensor([9.0, 0.25, 0.5, 0.125, 1.0, 0.75, 9.0, 9.0, *[9.0] * 7])
    # by sequence; what is not trained does not count
    assert segments.sequence_max(per_segment)[:4].tolist() == [0.5, 1.0, 0.0, 0.0]


def test_siblings_of_one_segment_sequences() -> None:
    assert segments_of(batch("pp11", "p1")).siblings()[:2].tolist() == [1, 1]


def test_nothing_trained() -> None:
    inputs = batch("pp", "ppp")
    segments = segments_of(inputs)
    assert not segments.is_real.any()
    assert segments.siblings().tolist() == [1] * 4
    assert segments.sequence_max(torch.ones(4)).tolist() == [0] * 4
    assert count_segments(inputs, "sequence").item() == 0


def test_segments_keep_the_gradient() -> None:
    inputs = batch("p11", "p1")
    mask = inputs["labels"][:, 1:] != -100
    log_probs = torch.zeros_like(mask, dtype=torch.float32).requires_grad_()
    segments = Segments(log_probs, mask, *batch_ids(inputs, "sequence", None))
    (segments.logps * torch.tensor([1.0, 10.0, 100.0, 100.0])).sum().backward()
    assert log_probs.grad.tolist() == [
        [1.0, 1.0],  # first sequence
        [10.0, 10.0],  # second; its padding is masked in log_probs itself
    ]
    assert not segments.num_tokens.requires_grad
    assert segments.logps.dtype == torch.float64
