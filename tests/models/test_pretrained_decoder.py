"""Taking over a decoder: what is loaded, what is left out, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from hrm.errors import UserError
from hrm.models import ETRM, TRM, save_pretrained
from hrm.models.pretrained_decoder import load_decoder
from tests.models.helpers import ETRM_SMALL, SMALL, small_etrm, small_hrm, small_trm, task_batch

PUZZLES: dict[str, Any] = {"seq_len": 9, "puzzle_emb_ndim": 16, "puzzle_emb_len": 2}
TRM_ARCH = {**SMALL, **PUZZLES, "name": "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1"}


def trained() -> TRM:
    """Another TRM of the same size, with puzzle embeddings, whose weights are all its own."""
    model = small_trm(**PUZZLES, num_puzzle_identifiers=7)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.normal_()
    return model


def holds(model: ETRM, decoder: TRM) -> bool:
    mine, theirs = model.inner.state_dict(), decoder.inner.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())


def published(folder: Path, decoder: TRM, prefix: str, **arch: Any) -> Path:
    """As the published code leaves it: `step_N` beside `all_config.yaml`."""
    folder.mkdir(exist_ok=True)
    weights = {f"{prefix}{name}": tensor for name, tensor in decoder.state_dict().items()}
    torch.save(weights, folder / "step_900")
    torch.save({}, folder / "step_80")
    settings = {"arch": {**TRM_ARCH, **arch}, "data_paths": ["data/arc1concept-aug-1000"]}
    (folder / "all_config.yaml").write_text(yaml.safe_dump(settings))
    return folder


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module.", "_orig_mod.model.", "model."])
def test_published_weights_are_taken_over_whatever_they_were_wrapped_in(
    prefix: str, tmp_path: Path
) -> None:
    decoder, model = trained(), small_etrm()
    encoder = {name: tensor.clone() for name, tensor in model.encoder.state_dict().items()}
    found = load_decoder(model, published(tmp_path, decoder, prefix))
    assert found.path == tmp_path / "step_900"
    assert holds(model, decoder)
    assert all(torch.equal(t, encoder[name]) for name, t in model.encoder.state_dict().items())
    assert found.left_out == ["inner.puzzle_emb.weights"]
    assert found.loaded == sorted(f"inner.{name}" for name in model.inner.state_dict())
    assert found.numbers == sum(t.numel() for t in model.inner.state_dict().values())
    assert found.settings is not None
    assert found.settings["data_paths"] == ["data/arc1concept-aug-1000"]
    text = str(found)
    assert f"{len(found.loaded)} tensors" in text
    assert "left out inner.puzzle_emb.weights" in text
    # The context stands where the puzzle's embedding stood: the same positions learn on.
    batch = task_batch()
    _, outputs = model.train()(model.initial_carry(batch), batch)
    outputs["logits"].sum().backward()


def test_a_file_may_be_named_itself_and_without_settings_only_a_warning_is_left(
    tmp_path: Path,
) -> None:
    decoder, model = trained(), small_etrm()
    folder = published(tmp_path, decoder, "_orig_mod.model.")
    (folder / "all_config.yaml").unlink()
    with pytest.warns(UserWarning, match=r"does not say its H_cycles and L_cycles"):
        found = load_decoder(model, folder / "step_900")
    assert holds(model, decoder)
    assert found.settings is None


def test_exported_models_and_those_of_this_kind_too_are_taken_over(tmp_path: Path) -> None:
    decoder, model = trained(), small_etrm()
    load_decoder(model, save_pretrained(decoder, tmp_path / "trm"))
    assert holds(model, decoder)
    other = small_etrm()
    found = load_decoder(other, save_pretrained(model, tmp_path / "etrm"))
    assert holds(other, decoder)
    assert all(name.startswith("encoder.") for name in found.left_out)
    assert len(found.left_out) == len(model.encoder.state_dict())


def test_a_run_means_the_averaged_weights_of_its_newest_checkpoint(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    decoder, last, model = trained(), trained(), small_etrm()
    for step, weights in ((8, last), (10, last)):
        folder = tmp_path / "checkpoints" / f"step_{step:08d}"
        save_pretrained(weights, folder)
    save_file(decoder.state_dict(), folder / "ema.safetensors")
    found = load_decoder(model, tmp_path)
    assert found.path == folder
    assert holds(model, decoder)


@pytest.mark.parametrize(
    ("arch", "sentence"),
    [
        ({"L_cycles": 3}, r"was trained with L_cycles=3, but arch\.L_cycles is 2"),
        ({"H_cycles": 1}, r"was trained with H_cycles=1, but arch\.H_cycles is 2"),
        ({"num_heads": 4}, r"num_heads=4, but arch\.num_heads is 2"),
        ({"q_pool": "mean"}, r"q_pool=mean, but arch\.q_pool is first"),
        ({"pos_encodings": "none"}, r"pos_encodings=none, but arch\.pos_encodings is rope"),
    ],
)
def test_other_cycles_are_another_function_and_refused(
    arch: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    model = small_etrm()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=f"^load_pretrained_decoder: .*{sentence}"):
        load_decoder(model, published(tmp_path, trained(), "", **arch))
    exported = save_pretrained(small_trm(**{**PUZZLES, **arch}), tmp_path / "own")
    with pytest.raises(UserError, match=sentence):
        load_decoder(model, exported)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def without(name: str) -> Callable[[dict[str, Tensor]], None]:
    return lambda weights: weights.__delitem__(name)


def longer(weights: dict[str, Tensor]) -> None:
    weights["inner.lm_head.weight"] = torch.zeros(12, 16)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (longer, r"tensor inner\.lm_head\.weight is \(12, 16\), but \(11, 16\) here"),
        (without("inner.q_head.bias"), r"tensor inner\.q_head\.bias is missing"),
        (
            lambda weights: weights.update({"inner.more": torch.zeros(1)}),
            r"tensor inner\.more is unknown here",
        ),
    ],
)
def test_other_shapes_are_refused_by_the_name_of_the_tensor(
    fault: Callable[[dict[str, Tensor]], None], sentence: str, tmp_path: Path
) -> None:
    folder = published(tmp_path, trained(), "")
    weights = torch.load(folder / "step_900")
    fault(weights)
    torch.save(weights, folder / "step_900")
    with pytest.raises(UserError, match=sentence):
        load_decoder(small_etrm(), folder)


def test_what_is_no_decoder_is_refused(tmp_path: Path) -> None:
    model = small_etrm()
    with pytest.raises(UserError, match="no such folder or file"):
        load_decoder(model, tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no weights of a decoder"):
        load_decoder(model, tmp_path / "empty")
    hrm = save_pretrained(small_hrm(seq_len=ETRM_SMALL["seq_len"]), tmp_path / "hrm")
    with pytest.raises(UserError, match=r"another architecture: tensor inner\.H_level"):
        load_decoder(model, hrm)
