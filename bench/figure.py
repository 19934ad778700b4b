"""What one measurement says, and how a run of them is printed, kept and drawn."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass
class Figure:
    """`ours` and `reference` in `unit`; `target` bounds their ratio (or `ours` itself, where there is no reference).

    higher_is_better  decides the sense of the bound: a rate must reach it, a time must not exceed it
    """

    name: str
    unit: str
    ours: float
    target: float
    reference: float | None = None
    reference_name: str = ""
    higher_is_better: bool = False
    detail: dict[str, float | str] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """What is held against the target."""
        return self.ours / self.reference if self.reference else self.ours

    @property
    def reached(self) -> bool:
        return self.ratio >= self.target if self.higher_is_better else self.ratio <= self.target


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` (0 to 1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def number(value: float) -> str:
    if value >= 1_000_000:
        return f"{value / 1_000_000:.2f} M"
    return f"{value / 1000:.1f} k" if value >= 10_000 else f"{value:.3g}"


def table(figures: Sequence[Figure]) -> str:
    """One line a figure, aligned for a terminal."""
    rows = [("figure", "ours", "reference", "ratio", "target", "")]
    for f in figures:
        sign = "≥" if f.higher_is_better else "≤"
        reference = f"{number(f.reference)} {f.unit}  ({f.reference_name})" if f.reference else "-"
        ratio = f"{f.ratio:.2f} ×" if f.reference else "-"
        target = f"{sign} {f.target:g}" + (" ×" if f.reference else f" {f.unit}")
        rows.append((f.name, f"{number(f.ours)} {f.unit}", reference, ratio, target, "ok" if f.reached else "MISSED"))
        rows += [
            ("", f"  {k}: {number(v) if isinstance(v, float) else v}", "", "", "", "") for k, v in f.detail.items()
        ]
    return columns(rows)


def columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Aligned. What stands in the second column of a row without a name is a remark, and may be longer."""
    widths = [max(len(r[i]) for r in rows if i != 1 or r[0]) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows)


def keep(figures: Sequence[Figure]) -> Path:
    """Write the run as JSON and, where matplotlib is installed, as a plot of the ratios; returns the JSON's path."""
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / time.strftime("%Y%m%dT%H%M%S")
    run = {
        "machine": {"python": platform.python_version(), "system": platform.platform()},
        "figures": [asdict(f) | {"ratio": f.ratio, "reached": f.reached} for f in figures],
    }
    path = stem.with_suffix(".json")
    path.write_text(json.dumps(run, indent=1, ensure_ascii=False))
    _plot(figures, stem.with_suffix(".png"))
    return path


def _plot(figures: Sequence[Figure], path: Path) -> None:
    try:
        import matplotlib as mpl
    except ImportError:
        return
    mpl.use("Agg")
    from matplotlib import pyplot

    drawn, axes = pyplot.subplots(figsize=(9, 0.45 * len(figures) + 1.2))
    # 1.0 is the target; further right is always better, whatever the sense of the bound.
    margins = [f.ratio / f.target if f.higher_is_better else f.target / max(f.ratio, 1e-9) for f in figures]
    axes.barh([f.name for f in figures], margins, color=["#3b7" if f.reached else "#c44" for f in figures])
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("times better than the target (right of the line: reached)")
    axes.invert_yaxis()
    drawn.tight_layout()
    drawn.savefig(path, dpi=120)
    pyplot.close(drawn)
