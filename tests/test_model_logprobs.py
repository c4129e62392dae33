"""Log-probabilities of given completions; `test_transformers_backend` has those of samples."""

import pytest
from transformers import LlamaForCausalLM

from trl_math.generation.model_logprobs import completion_logprobs
from trl_math.models import tiny_model, tiny_tokenizer


class WithoutLogitsToKeep(LlamaForCausalLM):
    """A model of the old kind."""

    def forward(self, input_ids=None, attention_mask=None, use_cache=None):
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache)


def test_logprobs_of_a_model_that_cannot_leave_logits_out():
    encode = tiny_tokenizer().encode
    new = tiny_model()
    old = WithoutLogitsToKeep(new.config).eval()
    old.load_state_dict(new.state_dict())
    pairs = [(encode("12*34="), encode("408")), (encode("1"), encode("2345678"))]
    for ours, theirs in zip(
        completion_logprobs(old, pairs, 0), completion_logprobs(new.eval(), pairs, 0), strict=True
    ):
        assert ours == pytest.approx(theirs, abs=1e-6)
