"""Row by row: which token is picked, with which probability, and where a row ends."""

import pytest
import torch

from trl_math.errors import UsageError
from trl_math.generation.row_sampling import RowSampler, finished_tokens, sampling_processors
from trl_math.models import tiny_tokenizer
from trl_math.records import Sampling


TOKENIZER = tiny_tokenizer()


def test_tokens_are_drawn_with_their_probabilities():
    num_rows = 20_000
    logits = torch.tensor([0.0, 2.0, -torch.inf, 1.0, -3.0, -torch.inf]).expand(num_rows, -1)
    sampler = RowSampler(range(num_rows), num_tokens=2, prompt_width=5)
    picked = [sampler(torch.zeros(num_rows, width), logits).argmax(dim=-1) for width in (5, 6)]
    assert (picked[0] != picked[1]).any()
    for tokens_ in picked:
        counts = torch.bincount(tokens_, minlength=6)
        expected = num_rows * logits[0].softmax(dim=-1)
        assert counts[2] == counts[5] == 0
        # Five standard deviations.
        assert ((counts - expected).abs() <= 5 * expected.sqrt()).all()


def test_a_sampler_draws_the_same_numbers_however_many_it_draws():
    few, many = RowSampler([5], 3, 0).numbers, RowSampler([6, 5], 100, 0).numbers
    assert few[0].tolist() == many[1, :3].tolist()


@pytest.mark.parametrize(
    "sampling", [Sampling(top_k=1), Sampling(top_p=1e-6), Sampling(min_p=0.999), Sampling(temperature=1e-4)]
)
def test_each_setting_is_used(sampling):
    logits = torch.randn(50, 20, generator=torch.Generator().manual_seed(0))
    processed = sampling_processors(sampling, range(50), 1, 0)(torch.zeros(50, 0), logits.clone())
    assert processed.argmax(dim=-1).tolist() == logits.argmax(dim=-1).tolist()
    neutral = sampling_processors(Sampling(), range(50), 1, 0)
    assert len(neutral) == 1
    assert neutral(torch.zeros(50, 0), logits.clone()).argmax(dim=-1).tolist() != logits.argmax(dim=-1).tolist()


def test_greedy_draws_nothing_and_refuses_a_broken_model():
    greedy = sampling_processors(Sampling(temperature=0), range(2), 1, 0)
    logits = torch.randn(2, 20, generator=torch.Generator().manual_seed(0))
    assert torch.equal(greedy(torch.zeros(2, 0), logits.clone()), logits)
    logits[1, 3] = torch.nan
    with pytest.raises(UsageError, match="finite"):
        greedy(torch.zeros(2, 0), logits)


def test_finished_tokens_of_multibyte_text():
    ids = TOKENIZER.encode("½→€.")
    kept, text, is_done = finished_tokens(TOKENIZER, [*ids, TOKENIZER.pad_token_id], 99, [], ["→"])
    assert (kept, text, is_done) == (ids[:5], "½", True)
    assert finished_tokens(TOKENIZER, ids, 4, [], ["→"]) == (ids[:4], TOKENIZER.decode(ids[:4]), False)
    # The first that is completed, not the first of the list; an end token before it wins.
    assert finished_tokens(TOKENIZER, ids, 99, [], [".", "€"])[1] == "½→"
    assert finished_tokens(TOKENIZER, [*ids[:2], 7, *ids], 99, [7], ["€"]) == ([*ids[:2], 7], "½", True)
