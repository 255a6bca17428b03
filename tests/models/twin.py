"""HRM's and TRM's step written out in loops: slow, obviously right, and nothing of the package.

Weights are a dict under their published names, settings a dict under theirs. Everything is computed
in the type of the weights. `x` is (rows, positions, width).
"""

import math
from typing import Any

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def rms_norm(x: Tensor, eps: float) -> Tensor:
    return x / torch.sqrt((x**2).mean(-1, keepdim=True) + eps)


def rotate(head: Tensor, theta: float) -> Tensor:
    """Features i and i + d/2 of position p, as a complex number, turned by p * theta^(-2i/d)."""
    positions, d = head.shape
    p = torch.arange(positions, dtype=head.dtype)
    i = torch.arange(d // 2, dtype=head.dtype)
    angle = p[:, None] * theta ** (-2 * i / d)
    turned = torch.complex(head[:, : d // 2], head[:, d // 2 :]) * torch.exp(1j * angle)
    return torch.cat((turned.real, turned.imag), dim=1)


def attention(w: Weights, name: str, x: Tensor, c: dict[str, Any]) -> Tensor:
    heads, d = c["num_heads"], c["hidden_size"] // c["num_heads"]
    rows = []
    for row in x:
        q, k, v = (row @ w[f"{name}.qkv_proj.weight"].T).chunk(3, dim=1)
        outs = []
        for h in range(heads):
            one = slice(h * d, (h + 1) * d)
            q_h, k_h, v_h = q[:, one], k[:, one], v[:, one]
            if c["pos_encodings"] == "rope":
                q_h, k_h = rotate(q_h, c["rope_theta"]), rotate(k_h, c["rope_theta"])
            weight = torch.exp(q_h @ k_h.T / math.sqrt(d))
            outs.append((weight / weight.sum(1, keepdim=True)) @ v_h)
        rows.append(torch.cat(outs, dim=1) @ w[f"{name}.o_proj.weight"].T)
    return torch.stack(rows)


def swiglu(w: Weights, name: str, x: Tensor) -> Tensor:
    gate, up = (x @ w[f"{name}.gate_up_proj.weight"].T).chunk(2, dim=-1)
    return (gate / (1 + torch.exp(-gate)) * up) @ w[f"{name}.down_proj.weight"].T


def level(w: Weights, name: str, x: Tensor, c: dict[str, Any]) -> Tensor:
    layer = 0
    while f"{name}.layers.{layer}.mlp.down_proj.weight" in w:
        here, eps = f"{name}.layers.{layer}", c["rms_norm_eps"]
        if c.get("mlp_t"):
            columns = x.transpose(1, 2)
            columns = rms_norm(columns + swiglu(w, f"{here}.mlp_t", columns), eps)
            x = columns.transpose(1, 2)
        else:
            x = rms_norm(x + attention(w, f"{here}.self_attn", x, c), eps)
        x = rms_norm(x + swiglu(w, f"{here}.mlp", x), eps)
        layer += 1
    return x


def puzzle_positions(c: dict[str, Any]) -> int:
    if c["puzzle_emb_ndim"] == 0:
        return 0
    return max(math.ceil(c["puzzle_emb_ndim"] / c["hidden_size"]), c.get("puzzle_emb_len", 0))


def embed(w: Weights, inputs: Tensor, puzzles: Tensor, c: dict[str, Any]) -> Tensor:
    width, rows = c["hidden_size"], []
    for tokens, puzzle in zip(inputs.tolist(), puzzles.tolist(), strict=True):
        vectors = [w["inner.embed_tokens.embedding_weight"][token] for token in tokens]
        if c["puzzle_emb_ndim"]:
            front = torch.zeros(puzzle_positions(c) * width, dtype=vectors[0].dtype)
            front[: c["puzzle_emb_ndim"]] = w["inner.puzzle_emb.weights"][puzzle]
            vectors = [*front.view(-1, width), *vectors]
        row = torch.stack(vectors)
        if c["pos_encodings"] == "learned":
            row = (row + w["inner.embed_pos.embedding_weight"]) / math.sqrt(2)
        rows.append(math.sqrt(width) * row)
    return torch.stack(rows)


def start(w: Weights, x: Tensor) -> tuple[Tensor, Tensor]:
    """The latents of a new sequence."""
    return w["inner.H_init"].expand_as(x), w["inner.L_init"].expand_as(x)


def step(
    w: Weights, c: dict[str, Any], x: Tensor, z_H: Tensor, z_L: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One step from the embedded input: `z_H`, `z_L`, logits, and (q_halt, q_continue) per row."""
    low, high = "inner.L_level", "inner.H_level"
    if f"{high}.layers.0.mlp.down_proj.weight" not in w:  # TRM has one network
        high = low
    for _ in range(c["H_cycles"]):
        for _ in range(c["L_cycles"]):
            z_L = level(w, low, z_L + z_H + x, c)
        z_H = level(w, high, z_H + z_L, c)
    logits = z_H[:, puzzle_positions(c) :] @ w["inner.lm_head.weight"].T
    q = z_H[:, 0] @ w["inner.q_head.weight"].T + w["inner.q_head.bias"]
    return z_H, z_L, logits, q
