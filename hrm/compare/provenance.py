"""What stands beside the figures: which tasks were trained on and held out, data, decoder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hrm.compare.comparison import Comparison
from hrm.compare.data import data_told, rows_told, splits_told
from hrm.compare.decoder import decoder_told
from hrm.compare.folder import read_settings

TOLD_OF = (
    *("data", "eval_split", "max_train_groups", "max_eval_groups"),
    *("load_pretrained_decoder", "init_from"),
)
"""Settings that these sentences tell of."""


def about(comparison: Comparison) -> dict[str, Any]:
    """Of what a comparison's runs were made, in words; what differs is told of each."""
    distinct: dict[str, tuple[Path, dict[str, Any]]] = {}
    for run in comparison.runs:
        settings = read_settings(run.folder) if run.folder else {}
        if run.folder and settings:
            key = json.dumps([settings.get(key) for key in TOLD_OF])
            distinct.setdefault(key, (run.folder, settings))
    found = list(distinct.values())
    roots = {str((settings.get("data") or {}).get("path")) for _, settings in found}
    return {
        "data": "; ".join(data_told(Path(root)) for root in sorted(roots)),
        "tasks": _joined(splits_told(settings) for _, settings in found),
        "rows": _joined(rows_told(settings) for _, settings in found),
        "decoder": _joined(decoder_told(folder, settings) for folder, settings in found),
    }


def _joined(sentences: Iterable[str]) -> str:
    return " ".join(dict.fromkeys(sentences))
