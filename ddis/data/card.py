"""The dataset card: what a reader must know of a dataset, as text and as data."""

from typing import Any

import numpy as np
import yaml

from ddis.pde.base import Problem


def field_statistics(field: np.ndarray) -> dict[str, float]:
    """Mean, standard deviation, smallest and largest value of fields [N, S, S]."""
    wide = field.astype(np.float64)
    return {"mean": float(wide.mean()), "std": float(wide.std()), "min": float(wide.min()), "max": float(wide.max())}


def card_data(problem: Problem, name: str, pde: str, splits: dict[str, dict[str, Any]], resolution: int, seed: int) -> dict:
    """The content of card.yaml; `splits` gives for each split its count, digest, residual and statistics."""
    periodic = problem.basis == "fourier"
    spacing = f"1/{resolution}" if periodic else f"1/{resolution - 1}"
    return {
        "problem": name,
        "pde": pde,
        "equation": problem.equation,
        "domain": "unit square",
        "boundary": problem.boundary,
        "grid": f"{resolution} x {resolution} nodes, spacing {spacing}, boundary {'not repeated' if periodic else 'included'}",
        "axes": f"[n, i, j] is x = i * {spacing}, y = j * {spacing}",
        "units": "dimensionless",
        "distribution": problem.distribution,
        "parameters": problem.parameters.model_dump(),
        "solver": (type(problem).__doc__ or "").strip().split("\n\n")[1].replace("\n    ", " "),
        "seed": seed,
        "splits": splits,
        "warnings": [],
    }


def card_markdown(card: dict) -> str:
    """The card as Markdown."""
    lines = [f"# Dataset {card['problem']}", ""]
    for key in ("equation", "domain", "boundary", "grid", "axes", "units", "distribution", "solver", "seed"):
        lines.append(f"- **{key}**: {card[key]}")
    lines.append(f"- **parameters**: {yaml.safe_dump(card['parameters'], default_flow_style=True).strip()}")
    lines += ["", "| split | fields | mean a | std a | mean u | std u | largest relative residual |", "|---" * 7 + "|"]
    for split, info in card["splits"].items():
        a, u = info["coefficient"], info["solution"]
        lines.append(
            f"| {split} | {info['count']} | {a['mean']:.3g} | {a['std']:.4g} | {u['mean']:.3g} | {u['std']:.4g} "
            f"| {info['residual']:.1e} |"
        )
    lines += ["", "Files: `train.h5`, `validation.h5`, `test.h5` with `coefficient` and `solution`, float32 [N, S, S].", ""]
    lines += [f"Warning: {warning}" for warning in card["warnings"]]
    return "\n".join(lines)
