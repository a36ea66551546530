"""The one call of ``torch.onnx.export``: without files left behind and without a change of global state."""

from __future__ import annotations

import logging
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx
    import torch

# The exporter keeps its state in module globals (`torch.onnx._globals`), and warnings filters are the process's.
_exporting = threading.Lock()


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Hold the exporter alone and silence it; every call of `onnx_from_torch` goes inside."""
    import torch

    logger = logging.getLogger("torch.onnx")
    # Fused attention has no ONNX form; the same arithmetic by single operators has.
    attention = torch.backends.mha
    with _exporting, warnings.catch_warnings():
        level, fused, prints = logger.level, attention.get_fastpath_enabled(), torch._C._jit_is_onnx_log_enabled()
        # Torch announces the end of the exporter that we choose, and warns of constants that are meant as constants.
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        attention.set_fastpath_enabled(False)
        try:
            yield
        finally:
            logger.setLevel(level)
            attention.set_fastpath_enabled(fused)
            torch._C._jit_set_onnx_log_enabled(prints)  # the exporter switches it on and never off


def onnx_from_torch(
    module: torch.nn.Module,
    arguments: tuple[torch.Tensor, ...],
    *,
    input_names: Sequence[str],
    output_names: Sequence[str],
    opset: int,
    dynamic_rows: bool,
    dynamo: bool = False,
) -> onnx.ModelProto:
    """Trace `module` on `arguments`, axis 0 named "n" if `dynamic_rows`; raises whatever the exporter raises."""
    import onnx
    import torch

    options: dict[str, Any] = {}
    if dynamo:
        options["external_data"] = False
        if dynamic_rows:
            rows = torch.export.Dim("n")
            options["dynamic_shapes"] = (tuple({0: rows} for _ in arguments),)
    elif dynamic_rows:
        options["dynamic_axes"] = {name: {0: "n"} for name in [*input_names, *output_names]}
    with tempfile.TemporaryDirectory() as folder, nullcontext() if dynamo else _without_log(module):
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            module,
            arguments,
            path,
            dynamo=dynamo,
            verbose=False,
            input_names=list(input_names),
            output_names=list(output_names),
            opset_version=opset,
            **options,
        )
        return onnx.load(path)


@contextmanager
def _without_log(module: torch.nn.Module) -> Iterator[None]:
    """Keep the TorchScript exporter from printing the whole graph of a module that it fails on."""
    import torch

    # It switches its log on, whatever it is asked for, and then calls the module.
    hook = module.register_forward_pre_hook(lambda *_: torch._C._jit_set_onnx_log_enabled(False))
    try:
        yield
    finally:
        hook.remove()
