"""The sparse puzzle embedding: local rows that get gradients, and SignSGD on touched rows."""

import copy
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import Tensor, nn

from hrm.errors import UserError
from hrm.models import CastedSparseEmbedding, CastedSparseEmbeddingSignSGD_Distributed
from hrm.training.ema import EMA

SignSGD = CastedSparseEmbeddingSignSGD_Distributed


def embedding(rows: int = 6, width: int = 2, batch_size: int = 4) -> CastedSparseEmbedding:
    """Row r holds r + 1 everywhere."""
    module = CastedSparseEmbedding(rows, width, batch_size)
    module.weights.copy_(torch.arange(1.0, rows + 1)[:, None].expand(rows, width))
    return module


def is_live(module: CastedSparseEmbedding, ids: Tensor | None = None) -> bool:
    """Whether the local rows are a leaf that receives a gradient."""
    ids = torch.tensor([1, 2]) if ids is None else ids
    module.train()
    module.local_weights.grad = None
    module(ids).sum().backward()
    leaf = module.local_weights
    return bool(leaf.is_leaf and leaf.grad is not None and leaf.grad[: len(ids)].eq(1).all())


def test_rows_start_at_zero_by_default() -> None:
    assert not CastedSparseEmbedding(5, 3, 2).weights.any()
    spread = CastedSparseEmbedding(500, 30, 2, init_std=0.5).weights.std()
    assert float(spread) == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("ids_dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("cast_to", [torch.float32, torch.bfloat16])
def test_training_and_evaluation_give_the_same_rows(
    ids_dtype: torch.dtype, cast_to: torch.dtype
) -> None:
    module = embedding()
    module.cast_to = cast_to
    ids = torch.tensor([5, 0, 5], dtype=ids_dtype)
    trained, evaluated = module.train()(ids), module.eval()(ids)
    assert trained.tolist() == evaluated.tolist() == [[6, 6], [1, 1], [6, 6]]
    assert trained.dtype == evaluated.dtype == cast_to
    assert trained.requires_grad
    assert not evaluated.requires_grad


def test_a_batch_of_any_size_evaluates_and_up_to_batch_size_trains() -> None:
    module = embedding(batch_size=3)
    assert module.eval()(torch.arange(6)).shape == (6, 2)
    module.train()
    assert module(torch.tensor([1])).shape == (1, 2)
    with pytest.raises(UserError, match=r"batch_size: a training batch of 4 rows.* at most 3"):
        module(torch.arange(4))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("bad", [-1, 6, 1000])
def test_an_identifier_out_of_range_is_named(bad: int, training: bool) -> None:
    with pytest.raises(UserError, match=rf"puzzle_identifiers: {bad} is not in 0\.\.5"):
        embedding().train(training)(torch.tensor([0, bad]))


def test_parameters_and_buffers_hold_table_leaf_and_ids() -> None:
    module = embedding()
    for tensors in (list(module.parameters()), list(module.buffers())):
        assert [id(t) for t in tensors] == [
            id(module.weights),
            id(module.local_weights),
            id(module.local_ids),
        ]


def test_a_model_around_it_sees_the_table_as_a_buffer_alone() -> None:
    outer = nn.ModuleDict({"emb": embedding(), "other": nn.Linear(1, 1)})
    assert {n for n, _ in outer.named_parameters()} == {"other.weight", "other.bias"}
    assert {n for n, _ in outer.named_buffers()} == {"emb.weights"}
    assert set(outer.state_dict()) == {"emb.weights", "other.weight", "other.bias"}


def test_state_dict_holds_the_table_and_keeps_the_leaf() -> None:
    module = embedding()
    module(torch.tensor([3]))
    state = module.state_dict()
    assert set(state) == {"weights"}
    fresh = CastedSparseEmbedding(6, 2, 4)
    optimizer = SignSGD(fresh.parameters(), lr=0.5, weight_decay=0.0)
    fresh.load_state_dict(state)
    assert is_live(fresh)
    optimizer.step()
    assert fresh.weights[:, 0].tolist() == [1, 1.5, 2.5, 4, 5, 6]


def test_deepcopy_is_a_live_embedding_of_its_own() -> None:
    module = embedding()
    assert is_live(module)
    other = copy.deepcopy(module)
    assert other.local_weights is not module.local_weights
    assert is_live(other)
    optimizer = SignSGD(other.parameters(), lr=0.5, weight_decay=0.0)
    optimizer.step()
    assert other.weights[1, 0] == 1.5
    assert module.weights[1, 0] == 2
    assert is_live(module)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_to_keeps_the_leaf_and_the_optimizers_hold(moment: str) -> None:
    module = embedding()
    outer = nn.Sequential(module)
    if moment == "before":
        outer.to("cpu", torch.float64)
    optimizer = SignSGD(module.parameters(), lr=0.5, weight_decay=0.0)
    module.train()(torch.tensor([0])).sum().backward()
    if moment == "after":
        outer.to("cpu", torch.float64)
    assert module.weights.dtype == module.local_weights.dtype == torch.float64
    assert module.local_ids.dtype == torch.int64
    module.cast_to = torch.float64
    assert is_live(module)
    optimizer.step()
    assert module.weights[:, 0].tolist() == [1, 1.5, 2.5, 4, 5, 6]


def test_sign_sgd_by_hand() -> None:
    module = embedding()
    optimizer = SignSGD(module.parameters(), lr=0.1, weight_decay=0.5)
    out = module(torch.tensor([4, 1, 4]))
    # Row 4: gradients 3 and -1 in component 0, 1 and -1 in component 1. Row 1: -2 and 0.
    (out * torch.tensor([[3.0, 1.0], [-2.0, 0.0], [-1.0, -1.0]])).sum().backward()
    before = module.weights.clone()
    optimizer.step()
    decay = 1 - 0.1 * 0.5
    expected = before.clone()
    expected[4] = torch.tensor([5 * decay - 0.1, 5 * decay])  # duplicates summed: 2 and 0
    expected[1] = torch.tensor([2 * decay + 0.1, 2 * decay])
    torch.testing.assert_close(module.weights, expected)
    assert torch.equal(module.weights[[0, 2, 3, 5]], before[[0, 2, 3, 5]])


def test_local_rows_without_a_slot_touch_nothing() -> None:
    module = embedding()
    optimizer = SignSGD(module.buffers(), lr=0.1, weight_decay=0.5)
    module(torch.tensor([5, 5, 5, 5])).sum().backward()
    optimizer.zero_grad()
    module(torch.tensor([2])).sum().backward()  # a smaller batch after a full one
    before = module.weights.clone()
    optimizer.step()
    changed = (module.weights != before).any(1)
    assert changed.tolist() == [False, False, True, False, False, False]


def test_no_gradient_no_step() -> None:
    module = embedding()
    optimizer = SignSGD(module.parameters(), lr=0.1, weight_decay=0.5)
    before = module.weights.clone()
    optimizer.step()
    module(torch.tensor([1])).sum().backward()
    optimizer.zero_grad()
    optimizer.step()
    assert torch.equal(module.weights, before)


@pytest.mark.parametrize("set_to_none", [True, False])
def test_gradients_end_with_zero_grad(set_to_none: bool) -> None:
    module = embedding(batch_size=2)
    optimizer = SignSGD(module.parameters(), lr=0.5, weight_decay=0.0)
    for ids in ([0, 1], [2, 3], [4, 5]):
        module(torch.tensor(ids)).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=set_to_none)
    assert module.weights[:, 0].tolist() == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]


def test_accumulated_batches_equal_one_large_batch() -> None:
    ids = torch.tensor([0, 1, 1, 4])
    scale = torch.tensor([1.0, 3.0, -2.0, -1.0])[:, None]
    tables = []
    for split in (1, 2, 4):
        module = embedding(batch_size=4)
        optimizer = SignSGD(module.parameters(), lr=0.5, weight_decay=0.1)
        for _ in range(2):
            for part in range(split):
                rows = slice(part * 4 // split, (part + 1) * 4 // split)
                (module(ids[rows]) * scale[rows]).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        tables.append(module.weights.clone())
    assert torch.equal(tables[0], tables[1])
    assert torch.equal(tables[0], tables[2])


def test_steps_of_the_same_sequences_share_their_local_rows() -> None:
    module = embedding(batch_size=2)
    optimizer = SignSGD(module.parameters(), lr=0.5, weight_decay=0.0)
    ids = torch.tensor([2, 3])
    for factor in (1.0, -3.0):
        (factor * module(ids)).sum().backward()
    optimizer.step()
    assert module.weights[:, 0].tolist() == [1, 2, 3.5, 4.5, 5, 6]


def test_more_accumulation_than_there_is_room_for_is_refused() -> None:
    module = embedding(batch_size=3)
    SignSGD(module.parameters())
    module(torch.tensor([0, 1])).sum().backward()
    with pytest.raises(UserError, match=r"batch_size: .* 2 rows and 2 rows that wait for step"):
        module(torch.tensor([2, 3]))


def test_rows_without_an_optimizer_are_frozen() -> None:
    module = embedding(batch_size=2)
    for ids in ([0, 1], [2, 3], [4, 5]):
        module(torch.tensor(ids)).sum().backward()
    assert module.local_weights.grad is not None
    assert module.local_weights.grad.tolist() == [[1, 1], [1, 1]]


def test_two_embeddings_in_two_groups() -> None:
    first, second = embedding(), embedding()
    optimizer = SignSGD(
        [
            {"params": first.parameters(), "lr": 0.5, "weight_decay": 0.0},
            {"params": second.buffers(), "lr": 0.25, "weight_decay": 0.0},
        ]
    )
    (first(torch.tensor([0])) + second(torch.tensor([1]))).sum().backward()
    optimizer.step()
    assert first.weights[:2, 0].tolist() == [0.5, 2]
    assert second.weights[:2, 0].tolist() == [1, 1.75]


@pytest.mark.parametrize(("lr", "weight_decay"), [(-1.0, 0.0), (1.0, -0.1)])
def test_negative_settings_are_refused(lr: float, weight_decay: float) -> None:
    with pytest.raises(ValueError, match="is below 0"):
        SignSGD(embedding().parameters(), lr=lr, weight_decay=weight_decay)


def test_anything_but_one_embedding_a_group_is_refused() -> None:
    with pytest.raises(ValueError, match="one embedding"):
        SignSGD(nn.Linear(2, 2).parameters())
    with pytest.raises(ValueError, match="one embedding"):
        SignSGD([*embedding().parameters(), *embedding().parameters()])


def test_the_average_covers_the_table() -> None:
    outer = nn.Sequential(embedding())
    ema = EMA(outer, 0.5)
    for value in (3.0, 5.0):
        outer[0].weights.fill_(value)
        ema.update_parameters(outer)
    # The first update copies, the second has rate min(0.5, 1/11).
    expected = torch.full((6, 2), 3 / 11 + 5 * 10 / 11)
    torch.testing.assert_close(ema.module[0].weights, expected)


@pytest.mark.slow
def test_compiled_modules_keep_the_leaf() -> None:
    # In a process of its own: the shape checks of this test session cannot be compiled.
    code = """
        import torch
        from hrm.models import CastedSparseEmbedding, CastedSparseEmbeddingSignSGD_Distributed
        from tests.models.helpers import small_batch, small_hrm

        torch.set_num_threads(1)
        for backend in ("eager", "aot_eager"):
            module = CastedSparseEmbedding(5, 3, 4)
            compiled = torch.compile(module, backend=backend)
            for ids in ([1, 2], [4, 0]):
                module.local_weights.grad = None
                compiled(torch.tensor(ids)).sum().backward()
                leaf = module.local_weights
                assert leaf.is_leaf and leaf.grad[:, 0].tolist() == [1, 1, 0, 0]
                assert module.local_ids.tolist() == [*ids, -1, -1]
            CastedSparseEmbeddingSignSGD_Distributed(module.parameters())
            compiled(torch.tensor([3, 3])).sum().backward()  # behind the rows that wait
            assert module.local_ids.tolist() == [4, 0, 3, 3]
            assert module.local_weights.grad[:, 0].tolist() == [1, 1, 1, 1]

        settings = dict(puzzle_emb_ndim=16, num_puzzle_identifiers=4, H_cycles=1, L_cycles=1)
        results = []
        for compiled in (False, True):
            torch.manual_seed(0)
            model = small_hrm(**settings)
            step = torch.compile(model, backend="eager") if compiled else model
            batch = small_batch()
            _, outputs = step(model.initial_carry(batch, seed=0), batch)
            outputs["logits"].square().sum().backward()
            leaf = model.puzzle_emb.local_weights
            assert leaf.is_leaf and leaf.grad.any()
            results.append((outputs["logits"].detach(), leaf.grad))
        for plain, compiled in zip(*results):
            torch.testing.assert_close(compiled, plain, atol=1e-4, rtol=1e-3)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
