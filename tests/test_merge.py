"""`trl-math merge`: the checkpoint says what base and adapter say together."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from trl_math.cli.main import main
from trl_math.generation import merge
from trl_math.generation.checkpoint import open_checkpoint
from trl_math.generation.engines import EngineArguments, base_of_adapter
from trl_math.models import save_tiny, tiny_model, tiny_tokenizer


@pytest.fixture
def adapter(_working_folder):
    """A base in bfloat16 and a trained adapter on it, which is returned."""
    save_tiny("base")
    AutoModelForCausalLM.from_pretrained("base", dtype=torch.bfloat16).save_pretrained("base")
    base = AutoModelForCausalLM.from_pretrained("base", dtype=torch.float32)
    tuned = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear"))
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(len(name)))
    tuned.save_pretrained("adapter")
    tiny_tokenizer().save_pretrained("adapter")
    return tuned.eval()


def test_the_merged_model_says_what_base_and_adapter_say(adapter, capsys):
    assert main(["merge", "adapter", "--output", "merged", "--dtype", "float32"]) == 0
    ids = torch.tensor([tiny_tokenizer()("What is 2 + 2?").input_ids])
    merged = AutoModelForCausalLM.from_pretrained("merged")
    assert merged.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, adapter(ids).logits, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(tiny_model()(ids).logits, merged(ids).logits, atol=1e-2)
    assert AutoTokenizer.from_pretrained("merged").chat_template == tiny_tokenizer().chat_template
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in Path("merged").iterdir()}
    assert main(["merge", "adapter", "--output", "merged", "--dtype", "float32"]) == 0
    assert "already: nothing to do." in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in Path("merged").iterdir()} == before
    assert main(["merge", "adapter", "--output", "merged"]) == 2
    assert "output merged is there already and holds something else" in capsys.readouterr().err


def test_an_adapter_is_used_on_the_revision_that_it_was_trained_on(adapter, monkeypatch):
    """Merging and sampling take it from the adapter, unless another is given."""
    assert base_of_adapter(Path("adapter")) == ("base", None) and EngineArguments(model="adapter").revision is None
    file = Path("adapter/adapter_config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"revision": "v2"}))
    engine = EngineArguments(model="adapter")
    assert (engine.model, engine.adapter, engine.revision) == ("base", "adapter", "v2")
    assert EngineArguments(model="adapter", revision="v3").revision == "v3"
    asked = []
    load = AutoModelForCausalLM.from_pretrained

    def note(name, *args, revision=None, **kwargs):
        asked.append(revision)
        return load(name, *args, **kwargs)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", note)
    # A folder has no revisions, and so stands for a model of the hub here.
    monkeypatch.setattr(
        merge, "open_checkpoint", lambda base, revision, adapter: open_checkpoint(base, adapter=adapter)
    )
    assert main(["merge", "adapter", "--output", "merged"]) == 0
    assert asked == ["v2"]


def test_by_default_weights_are_rounded_once_to_those_of_the_base(adapter):
    assert main(["merge", "adapter", "--output", "merged"]) == 0
    merged = AutoModelForCausalLM.from_pretrained("merged").state_dict()
    whole = adapter.merge_and_unload().state_dict()
    assert merged.keys() == whole.keys()
    assert all(torch.equal(merged[name], whole[name].to(torch.bfloat16)) for name in whole)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["base", "--output", "x"], "base holds no LoRA adapter"),
        (["adapter"], "Where does the merged model go?"),
        (["--output", "x"], "Which adapter?"),
        (["adapter", "--output", "x", "--dtype", "int8"], "Unknown dtype 'int8'"),
    ],
)
def test_mistakes(adapter, capsys, words, message):
    assert main(["merge", *words]) == 2
    assert message in capsys.readouterr().err
    assert not Path("x").exists()
