"""An image model on a split: the record of its steps, its figures, the same through the engine."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hrm.data import PuzzleSplit, load_split, write_dataset
from hrm.data.base import ImageMetadata, SplitArrays
from hrm.errors import UserError
from hrm.evaluation import iou, right_share
from hrm.evaluation.exact import at_step
from hrm.halting import accumulate, costs, optimal_step, policy_step
from hrm.inference.engine import Engine
from hrm.inference.evaluate import evaluate_split
from hrm.inference.loop import solve
from hrm.inference.segmentation import record, segmentation_summary
from hrm.models import TRM, ACTUNet
from hrm.token_loss import token_losses

ROWS, SIDE, STEPS = 21, 8, 5
IMAGE = {
    "channels": 1,
    "height": SIDE,
    "width": SIDE,
    "classes": 2,
    "values": "categorical",
    "class_names": ["no", "yes"],
    "task": "flood_fill",
}


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> PuzzleSplit:
    """Random mazes; one row has no label."""
    generator = np.random.default_rng(0)
    inputs = generator.integers(1, 4, (ROWS, SIDE * SIDE)).astype(np.uint8)
    labels = generator.integers(0, 2, inputs.shape).astype(np.uint8)
    labels[inputs == 2] = 255
    labels[4] = 255
    root = tmp_path_factory.mktemp("images") / "set"
    arrays = SplitArrays.from_rows(inputs, labels, difficulty=generator.integers(1, 9, ROWS))
    metadata = ImageMetadata.model_validate(IMAGE)
    write_dataset(root, {"test": arrays}, vocab_size=4, ignore_label_id=255, image=metadata)
    return load_split(root, "test")


def unet(**settings: Any) -> ACTUNet:
    """A small one that halts at different steps, though it has learned nothing."""
    torch.manual_seed(1)
    sizes = {k: IMAGE[k] for k in ("channels", "height", "width", "classes", "values")}
    small = {"base_channels": 4, "hidden_size": 16, "num_heads": 2, "halt_max_steps": STEPS}
    model = ACTUNet({**sizes, "batch_size": 8, "vocab_size": 4, **small, **settings})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # As drawn, its heads hardly tell one image from another.
            if name.startswith(("contribution", "threshold")):
                parameter.mul_(6.0)
    return model.eval()


@pytest.fixture(scope="module")
def model() -> ACTUNet:
    return unet()


def counted(split: PuzzleSplit) -> dict[str, np.ndarray]:
    taken = split.take(np.arange(len(split)))
    rows = (taken["labels"] != -100).any(-1)
    return {name: values[rows] for name, values in taken.items()}


def test_the_record_is_that_of_the_plain_loop(split: PuzzleSplit, model: ACTUNet) -> None:
    done = record(model, split, batch_size=8, predictions=True)
    taken = counted(split)
    batch = {k: torch.from_numpy(v) for k, v in taken.items() if k != "labels"}
    plain = solve(model, batch)
    assert done.predictions is not None
    np.testing.assert_array_equal(done.predictions, plain.predictions)
    np.testing.assert_array_equal(done.wants, plain.wants)
    np.testing.assert_array_equal(done.steps, plain.policy_steps)
    np.testing.assert_allclose(done.values["q_halt"], plain.q_halt, atol=1e-5)
    assert len(np.unique(done.steps)) > 2
    assert (done.predictions[0] != done.predictions[-1]).any()

    # S is the sum of contributions, and the policy halts where it is above the threshold.
    tensors = {name: torch.from_numpy(values) for name, values in done.values.items()}
    torch.testing.assert_close(accumulate(tensors["contribution"]), tensors["accumulated"])
    steps = policy_step(tensors["accumulated"], tensors["threshold"])
    np.testing.assert_array_equal(steps, done.steps)

    # The loss of one row after one step, by hand.
    carry = model.initial_carry(batch, seed=0)
    with torch.inference_mode():
        _, outputs = model(carry, batch)
    labels = torch.from_numpy(taken["labels"])
    losses = token_losses(outputs["logits"], labels, "stablemax")[3]
    assert done.task_loss.dtype == np.float32
    assert done.task_loss[0, 3] == pytest.approx(
        float(losses.sum()) / int((labels[3] != -100).sum()), rel=1e-4
    )


def test_the_summary_is_that_of_its_parts(split: PuzzleSplit, model: ACTUNet) -> None:
    done = record(model, split, predictions=True)
    labels, difficulty = counted(split)["labels"], np.delete(split.difficulty, 4)
    figures = segmentation_summary(done, step_penalty=0.002, tolerance=1e-4)
    json.dumps(figures, allow_nan=False)
    assert figures["count"] == ROWS - 1
    assert done.predictions is not None
    by_step = [iou(at, labels, 2) for at in done.predictions]
    assert figures["iou_by_step"] == pytest.approx(by_step)
    assert figures["iou"] == pytest.approx(by_step[-1])
    assert figures["accuracy"] == pytest.approx(right_share(done.predictions[-1], labels).mean())
    assert figures["mean_steps"] == STEPS
    assert figures["loss_by_step"] == pytest.approx(done.task_loss.mean(1))
    answers = done.predictions[done.steps - 1, np.arange(ROWS - 1)]
    assert figures["halting/iou"] == pytest.approx(iou(answers, labels, 2))

    cost = costs(torch.from_numpy(done.task_loss), 0.002)
    best = optimal_step(cost, 1e-4).numpy()
    assert figures["halting/agreement"] == (best == done.steps).mean()
    regret = (at_step(cost.numpy(), done.steps) - cost.numpy().min(0)).mean()
    assert figures["halting/regret"] == pytest.approx(regret, rel=1e-4)
    assert figures["halting/steps_std"] == pytest.approx(done.steps.std())
    assert figures["steps_histogram"] == np.bincount(done.steps, minlength=STEPS + 1)[1:].tolist()
    assert sum(figures["optimal_steps_histogram"]) == ROWS - 1
    assert sum(group["count"] for group in figures["by_difficulty"]) == ROWS - 1
    assert figures["by_difficulty"][0]["low"] == difficulty.min()


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_adaptive_answers_are_those_at_the_policys_step(
    split: PuzzleSplit, model: ACTUNet, batch_size: int
) -> None:
    full = evaluate_split(model, split)
    adaptive = evaluate_split(model, split, batch_size=batch_size, halting="adaptive")
    for name in ("iou", "dice", "exact_accuracy"):
        assert (
            adaptive[name] == adaptive[f"halting/{name}"] == pytest.approx(full[f"halting/{name}"])
        )
    for name in ("count", "steps_histogram", "operations"):
        assert adaptive[name] == full[name]
    assert adaptive["mean_steps"] == adaptive["halting/mean_steps"] == full["halting/mean_steps"]
    for name in ("steps_std", "spearman"):
        assert adaptive[f"halting/{name}"] == pytest.approx(full[f"halting/{name}"])
    # Of what was not run nothing is claimed.
    assert "halting/regret" not in adaptive
    assert "iou_by_step" not in adaptive

    done = record(model, split, predictions=True)
    served = Engine(model, slots=batch_size).solve_all(counted(split))
    assert done.predictions is not None
    answers = done.predictions[done.steps - 1, np.arange(ROWS - 1)]
    np.testing.assert_array_equal(served.predictions, answers)
    np.testing.assert_array_equal(served.steps, done.steps)


def test_batches_and_counts(split: PuzzleSplit, model: ACTUNet) -> None:
    seen: list[int] = []
    some = evaluate_split(model, split, count=7, batch_size=3, on_batch=seen.append)
    assert seen == [3, 6, 7]
    assert some["count"] in (6, 7)
    whole, parts = record(model, split), record(model, split, batch_size=4)
    np.testing.assert_allclose(parts.task_loss, whole.task_loss, atol=1e-5)
    np.testing.assert_array_equal(parts.counts.hits, whole.counts.hits)
    assert whole.predictions is None


def test_the_loss_is_the_one_that_was_asked_for(split: PuzzleSplit, model: ACTUNet) -> None:
    stable = evaluate_split(model, split)["loss_by_step"]
    soft = evaluate_split(model, split, loss="softmax")["loss_by_step"]
    assert stable != soft


def test_the_penalty_is_the_policys_unless_one_is_given(split: PuzzleSplit) -> None:
    own = unet(step_penalty=9.0, optimum_tolerance=1e-6)
    figures = evaluate_split(own, split)
    assert (figures["step_penalty"], figures["tolerance"]) == (9.0, 1e-6)
    # Every further step costs more than it can gain.
    assert figures["optimal_steps_histogram"] == [ROWS - 1, 0, 0, 0, 0]
    free = evaluate_split(own, split, step_penalty=0.0)
    assert free["step_penalty"] == 0
    assert free["optimal_steps_histogram"] != figures["optimal_steps_histogram"]


def test_operations_and_what_halting_saves(split: PuzzleSplit, model: ACTUNet) -> None:
    figures = evaluate_split(model, split)
    told, parts = figures["operations"], model.operations()
    ends = parts.encoder + parts.decoder
    assert told["encoder"] == parts.encoder
    assert 0 < parts.heads < parts.iteration
    assert told["max_steps"] == ends + STEPS * (parts.iteration - parts.heads)
    halting = ends + figures["halting/mean_steps"] * parts.iteration
    assert told["saved"] == pytest.approx(1 - halting / told["max_steps"])


@pytest.mark.parametrize("halting", ["graves", "pondernet", "halt_only", "convergence", "fixed"])
def test_any_policy_is_measured(split: PuzzleSplit, halting: str) -> None:
    figures = evaluate_split(unet(halting=halting), split)
    assert figures["count"] == sum(figures["steps_histogram"]) == ROWS - 1
    if halting == "fixed":  # A constant policy is shown for what it is.
        assert figures["steps_histogram"] == [0, 0, 0, 0, ROWS - 1]
        assert figures["halting/steps_std"] == 0
        assert figures["halting/spearman"] is None


def test_without_a_difficulty(split: PuzzleSplit, model: ACTUNet) -> None:
    from dataclasses import replace

    figures = evaluate_split(model, replace(split, difficulty=None))
    assert figures["halting/spearman"] is None
    assert figures["by_difficulty"] is None


def test_broken_weights_are_named(split: PuzzleSplit) -> None:
    broken = unet()
    with torch.no_grad():
        next(broken.decoder.parameters()).fill_(torch.nan)
    with pytest.raises(UserError, match="not finite for 20 of 20 rows"):
        evaluate_split(broken, split)


def test_other_rows_than_images_are_refused(tmp_path: Path) -> None:
    tokens = np.ones((3, 4), dtype=np.uint8)
    write_dataset(tmp_path / "set", {"test": SplitArrays.from_rows(tokens, tokens)}, vocab_size=4)
    plain = load_split(tmp_path / "set", "test")
    layers = {"H_cycles": 1, "L_cycles": 1, "L_layers": 1, "hidden_size": 8, "num_heads": 1}
    sizes = {"batch_size": 3, "seq_len": 4, "vocab_size": 4, "halt_max_steps": 2}
    token_model = TRM({**layers, **sizes})
    with pytest.raises(UserError, match="its rows are no images"):
        record(token_model, plain)
    with pytest.raises(UserError, match="step_penalty: is for images"):
        evaluate_split(token_model, plain, step_penalty=0.1)
    assert "q_halt_accuracy" in evaluate_split(token_model, plain)
