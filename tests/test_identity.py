"""Two models in one folder, one after the other, are two models."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from trl_math.generation.identity import fingerprint, model_identity
from trl_math.models.tiny import save_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def test_any_tensor_that_was_trained_shows(tiny, tmp_path):
    """Whichever one of the tensors changes, as a whole, as a step of training changes it."""
    before = fingerprint(tiny)
    folder = tmp_path / "copy"
    shutil.copytree(tiny, folder)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        save_file({**tensors, name: tensor * 1.001}, folder / "model.safetensors", {"format": "pt"})
        assert fingerprint(folder) != before, name
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert fingerprint(folder) == before, "the same weights are the same model, wherever they lie"


def test_what_trainers_leave_beside_a_model_is_not_the_model(tiny, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(tiny, folder)
    before = fingerprint(folder)
    torch.save({}, folder / "training_args.bin")
    (folder / "trainer_state.json").write_text("{}")
    assert fingerprint(folder) == before
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    assert fingerprint(folder) != before


def test_old_weight_files_are_read_as_well(tmp_path):
    torch.save({"weight": torch.zeros(300_000)}, tmp_path / "pytorch_model.bin")
    before = fingerprint(tmp_path)
    torch.save({"weight": torch.ones(300_000)}, tmp_path / "pytorch_model.bin")
    assert fingerprint(tmp_path) != before


def test_a_name_on_the_hub_is_its_commit():
    class Config:
        _commit_hash = "abc"

    assert model_identity("org/model", Config()) == "org/model@abc"
    assert model_identity("org/model", None, "v2") == "org/model@v2"
