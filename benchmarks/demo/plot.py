"""The demo's picture: that decrypted answers are the float model's, how near they are, and what a row costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display is needed or looked for

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from benchmarks.demo.experiment import Experiment
from benchmarks.tables import duration

BLUE, ORANGE, GREEN = "#2563c9", "#d9822b", "#2a8c6e"
INK, MUTED, RULE = "#1c2430", "#667080", "#d9dee5"
STAGES = ("quantize", "encrypt", "run encrypted", "decrypt")
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlepad": 26,
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


def draw(experiments: Sequence[Experiment], path: Path) -> None:
    """Draw four panels for one classifier and one regressor and save them as PNG."""
    classifier, regressor = experiments
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(2, 2, figsize=(12.5, 9.4), dpi=130)
        draw_scores(panels[0, 0], classifier)
        draw_targets(panels[0, 1], regressor)
        draw_differences(panels[1, 0], experiments)
        draw_times(panels[1, 1], experiments)
        figure.suptitle("Predictions on encrypted data", x=0.062, y=0.975, ha="left", fontsize=19, weight="bold")
        summary = (
            f"{classifier.rows + regressor.rows} test rows encrypted, none seen in training; features raw and unscaled"
        )
        figure.text(0.062, 0.925, summary, ha="left", color=MUTED, fontsize=11.5)
        figure.subplots_adjust(left=0.062, right=0.975, top=0.83, bottom=0.065, hspace=0.5, wspace=0.3)
        figure.savefig(path)
        plt.close(figure)


def say(axes: Axes, title: str, line: str) -> None:
    """Put the finding over a panel and, muted, what is drawn under it."""
    axes.set_title(title)
    axes.text(0, 1.035, line, transform=axes.transAxes, color=MUTED, fontsize=9.5, va="bottom")


def draw_scores(axes: Axes, e: Experiment) -> None:
    """Decrypted against float decision scores; the two classes in two colours."""
    equal = int(np.sum(e.decrypted == e.clear))
    say(
        axes,
        f"{e.title}: {equal} of {e.rows} labels are the float model's",
        f"{e.data}, decision score of each test row",
    )
    reach = [min(e.clear_scores.min(), e.decrypted_scores.min()), max(e.clear_scores.max(), e.decrypted_scores.max())]
    axes.plot(reach, reach, color=RULE, linewidth=6, solid_capstyle="round", zorder=1)
    for label, colour, marker in ((0, ORANGE, "s"), (1, BLUE, "o")):
        chosen = e.truth == label
        name = ("malignant", "benign")[label]
        axes.scatter(
            e.clear_scores[chosen],
            e.decrypted_scores[chosen],
            26,
            colour,
            marker=marker,
            alpha=0.8,
            linewidths=0,
            label=name,
            zorder=2,
        )
    axes.axhline(0, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.axvline(0, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_xlabel("float score (scikit-learn)")
    axes.set_ylabel("decrypted score")
    axes.legend(loc="upper left", title="truth", alignment="left", title_fontproperties={"size": 9.5})


def draw_targets(axes: Axes, e: Experiment) -> None:
    """Predictions against the truth: rings are the float model, dots are decrypted."""
    worst = np.abs(e.decrypted - e.clear).max() / np.ptp(e.truth)
    say(
        axes,
        f"{e.title}: decrypted within {worst:.0e} of the target's range",
        f"{e.data}, prediction of each test row against its true value",
    )
    axes.scatter(
        e.truth, e.clear, 62, "none", marker="o", edgecolors=ORANGE, linewidths=1.3, label="float (scikit-learn)"
    )
    axes.scatter(e.truth, e.decrypted, 12, BLUE, linewidths=0, label="decrypted")
    reach = [float(np.min(e.truth)), float(np.max(e.truth))]
    axes.plot(reach, reach, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    axes.set_xlabel("true value")
    axes.set_ylabel("prediction")
    axes.legend(loc="upper left")


def draw_differences(axes: Axes, experiments: Sequence[Experiment]) -> None:
    """For each row, how far the decrypted score is from the float score, as a share of the scores' range."""
    say(axes, "What quantization costs", "share of test rows whose decrypted score is nearer than x to the float score")
    for e, colour in zip(experiments, (BLUE, GREEN), strict=True):
        share = np.sort(np.abs(e.decrypted_scores - e.clear_scores)) / np.ptp(e.clear_scores)
        visible = np.maximum(share, 1e-9)
        axes.step(visible, np.arange(1, e.rows + 1) / e.rows, color=colour, linewidth=2.2, where="post", label=e.title)
    axes.axvline(1e-3, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.text(
        1e-3 * 0.87, 0.04, "promised: one thousandth", color=MUTED, fontsize=9.5, rotation=90, ha="right", va="bottom"
    )
    axes.set_xscale("log")
    axes.legend(loc="upper left")
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("difference, as a share of the scores' range")


def draw_times(axes: Axes, experiments: Sequence[Experiment]) -> None:
    """Time per encrypted row and stage, one bar per model, on one linear scale."""
    total = [1e3 * sum(e.seconds[stage] for stage in STAGES) / e.rows for e in experiments]
    say(
        axes,
        f"Per encrypted row: {' and '.join(f'{value:.1f}' for value in total)} ms",
        "wall clock, all rows of a model in one call",
    )
    height = 0.36
    for i, (e, colour) in enumerate(zip(experiments, (BLUE, GREEN), strict=True)):
        places = np.arange(len(STAGES)) + (i - 0.5) * (height + 0.03)
        values = [1e3 * e.seconds[stage] / e.rows for stage in STAGES]
        axes.barh(places, values, height, color=colour, label=f"{e.title}, {e.rows} rows of {e.features} features")
        for place, value in zip(places, values, strict=True):
            axes.annotate(
                duration(value / 1e3),
                (value, place),
                (4, 0),
                textcoords="offset points",
                va="center",
                color=INK,
                fontsize=9,
            )
    axes.set_yticks(range(len(STAGES)), STAGES)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.set_xlabel("milliseconds per row")
    axes.legend(loc="lower right")
