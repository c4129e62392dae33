"""What the vLLM backend promises, on a real engine in a process of its own (vLLM binds its process to cores)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import quiet_environment

from trl_math.errors import UsageError
from trl_math.generation.vllm_engine import adapter_rank, check_adapter
from trl_math.optional import is_installed


needs_vllm = pytest.mark.skipif(not is_installed("vllm"), reason="vllm is not installed: no wheel fits this machine")
SCRIPT = Path(__file__).parent / "engine" / "vllm_backend.py"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)],
        env={**quiet_environment(), "VLLM_CPU_KVCACHE_SPACE": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "found.json").read_text())


@needs_vllm
@pytest.mark.parametrize("what", ["greedy", "stop", "penalty", "top_k_1", "adapter", "checkpoint"])
def test_an_engine_says_what_transformers_says(found, what):
    """Text, tokens, reason and number of tokens, in float32."""
    ours, theirs = found[what]
    assert ours == theirs


@needs_vllm
def test_a_choice_and_its_probability_are_those_of_transformers(found):
    """Choices of one token: the engine may draw no other, and says how likely this one is among them."""
    ours, theirs = found["choices"]
    for (text, reason, logprob), (same_text, _, same_logprob) in zip(ours, theirs, strict=True):
        assert (text, reason) == (same_text, "stop")
        assert text in "127" and logprob < -0.1
        assert logprob == pytest.approx(same_logprob, abs=1e-3)


@needs_vllm
def test_stop_strings_end_samples(found):
    assert any(reason == "stop" for [[_, _, reason, _]] in found["stop"][0])
    assert found["stop"][0] != found["greedy"][0]


@needs_vllm
def test_the_end_of_the_context(found):
    """The last place in the context is used, and a prompt without any place is no error."""
    assert found["context_length"] == 96
    (fits, none, some) = found["edge"]
    assert fits[1] == 1 and none == ["prompt_too_long", 0]
    assert some[1] == 5 or some[0] == "stop"


@needs_vllm
def test_an_early_close_leaves_an_idle_engine(found):
    number, unfinished, afterwards = found["early"]
    assert (number, unfinished) == (2, 0)
    assert afterwards == [[sample[1] for sample in samples] for samples in found["greedy"][0]]


@needs_vllm
def test_samples_differ(found):
    """Within a prompt, and from one call to the next: a random state goes on."""
    first, second = found["sampled"]
    assert all(len({tuple(sample) for sample in samples}) > 4 for samples in first)
    assert first != second


@needs_vllm
def test_every_request_is_answered_once(found):
    assert found["indices"]
    assert found["window"] == 8


@needs_vllm
def test_adapters_come_and_go(found):
    assert found["adapter"][0] != found["without_adapter"]
    assert found["without_adapter"] == [[sample[1] for sample in samples] for samples in found["greedy"][0]]


@needs_vllm
def test_an_empty_prompt_is_refused(found):
    assert "no tokens" in found["empty_prompt"]


@needs_vllm
def test_truncation_is_the_same_everywhere(found):
    """min_p before top_k and top_p: the tokens that can come are the same set as with transformers."""
    ours, theirs = (set(tokens) for tokens in found["truncated"])
    assert ours == theirs
    assert 1 < len(ours) < 20


@needs_vllm
def test_what_the_engine_would_do_otherwise_is_refused(found):
    assert "at the lowest" in found["cold"]


@needs_vllm
def test_the_tokenizer_s_end_token_ends_samples(found):
    """Training often gives the tokenizer another one; without being told, the engine knows."""
    assert len(found["end_ids"]) == 2
    assert all(reason == "stop" for reason in found["other_end"])


@needs_vllm
def test_facts(found):
    assert found["facts"]["engine"] == "vllm" and found["facts"]["dtype"] == "float32"
    assert found["facts"]["engine_seed"] == 7


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"bias": "all"}, "bias"),
        ({"rank_pattern": {"q_proj": 16}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 16}}, "alpha_pattern"),
        ({"lora_bias": True}, "lora_bias"),
        ({}, None),
    ],
)
def test_adapters_that_vllm_would_apply_otherwise_are_refused(tmp_path, change, match):
    settings = {"peft_type": "LORA", "r": 8, "bias": "none", "rank_pattern": {}} | change
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    if match is None:
        assert adapter_rank(tmp_path) == 8
        return
    with pytest.raises(UsageError, match=match):
        check_adapter(tmp_path)


def test_a_folder_without_adapter(tmp_path):
    with pytest.raises(UsageError, match=r"no adapter_config\.json"):
        check_adapter(tmp_path)
