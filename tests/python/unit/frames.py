"""A data frame as users have them."""

from __future__ import annotations

import numpy as np
import pandas as pd


def mixed_frame(n: int = 240, towns: int = 20) -> tuple[pd.DataFrame, np.ndarray]:
    """A data frame with numbers, categories and missing values of both, and an effect of each column."""
    rng = np.random.default_rng(3)
    x = pd.DataFrame(
        {
            "size": rng.normal(size=n),
            "colour": pd.Categorical(rng.choice(["red", "green", "blue", "grey"], n)),
            "age": rng.integers(0, 90, n).astype(float),
            "town": pd.Categorical(rng.choice([f"town {i}" for i in range(towns)], n)),
        }
    )
    x.loc[::7, "age"] = np.nan
    x.loc[::5, "colour"] = np.nan
    y = x["colour"].isin(["red", "grey"]) * 3 + x["size"] + 2 * (x["town"].cat.codes % 3)
    return x, y.to_numpy()
