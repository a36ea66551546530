"""Random float graphs of what the passes look for, and of what they must leave alone."""

import numpy as np
from onnx import numpy_helper

from tests.python.unit.onnx_cleanup.laws import build, node, value

# Functions that are 1-Lipschitz and no larger than their argument, or bounded: see `laws.rounding`.
_UNARY = ("Relu", "Tanh", "Abs", "Neg", "Sigmoid", "Identity", "Dropout")
WIDTH = 4


class _Builder:
    def __init__(self, rng, opset, with_casts):
        self.rng, self.opset, self.with_casts = rng, opset, with_casts
        self.nodes, self.constants, self.values = [], {}, ["x", "z"]

    def name(self):
        return f"v{len(self.nodes)}"

    def constant(self, *shape):
        name = f"c{len(self.constants)}"
        self.constants[name] = self.rng.normal(size=shape).astype(np.float32)
        return name

    def pick(self):
        # Recent values are likelier, so that graphs get deep.
        return self.values[-1 - min(self.rng.geometric(0.4) - 1, len(self.values) - 1)]

    def add(self, op_type, inputs, **attributes):
        out = self.name()
        self.nodes.append(node(op_type, inputs, out, **attributes))
        return out

    def step(self):
        kinds = ["unary", "constant", "product", "affine", "gemm", "sum", "softmax", "reshape", "folded", "columns"]
        kinds.append("centred")
        kind = self.rng.choice([*kinds, "cast"] if self.with_casts else kinds)
        self.values.append(getattr(self, f"_{kind}")(self.pick()))

    def _unary(self, x):
        return self.add(self.rng.choice(_UNARY), [x])

    def _constant(self, x):
        shape = [(), (WIDTH,), (1, WIDTH)][self.rng.integers(3)]
        operands = [x, self.constant(*shape)]
        return self.add(self.rng.choice(["Add", "Sub", "Mul"]), operands[:: self.rng.choice([1, -1])])

    def _product(self, x):
        return self.add("MatMul", [x, self.constant(WIDTH, WIDTH)])

    def _affine(self, x):
        return self.add("Add", [self._product(x), self.constant(WIDTH)])

    def _gemm(self, x):
        return self.add("Gemm", [x, self.constant(WIDTH, WIDTH), self.constant(WIDTH)], transB=1, alpha=0.5)

    def _sum(self, x):
        return self.add(self.rng.choice(["Add", "Sub"]), [x, self.pick()])

    def _softmax(self, x):
        return self.add("Softmax", [x], axis=1)

    def _centred(self, x):
        reduction = self.rng.choice(["ReduceSum", "ReduceMean", "ReduceMax"])
        self.constants["last"] = np.array([1])
        takes_axes = reduction == "ReduceSum" or self.opset >= 18
        total = self.add(reduction, [x, "last"]) if takes_axes else self.add(reduction, [x], axes=[1])
        return self.add("Sub", [x, total])

    def _reshape(self, x):
        shape = self.add("Shape", [x])
        flat = self.add("Reshape", [x, self.add("Constant", [], value=numpy_helper.from_array(np.array([-1])))])
        return self.add("Reshape", [flat, shape])

    def _folded(self, x):
        zeros = self.add("ConstantOfShape", [self.add("Shape", [x])])
        return self.add("Add", [x, self.add("Add", [zeros, self.constant(WIDTH)])])

    def _columns(self, x):
        self.constants["order"] = np.array([2, 0, 3, 1])
        left = self.add("Gather", [x, "order"], axis=1)
        return self.add(self.rng.choice(["Add", "Sub"]), [left, x])

    def _cast(self, x):
        return self.add("Cast", [self.add("Cast", [x], to=11)], to=1)


def random_model(rng, opset, *, with_casts=False):
    """A model of two inputs, rows of `WIDTH` numbers each, with one to three outputs and some dead nodes."""
    builder = _Builder(rng, opset, with_casts)
    for _ in range(rng.integers(3, 14)):
        builder.step()
    made = [name for name in dict.fromkeys(builder.values) if name not in ("x", "z")]
    outputs = [made[-1], *rng.choice(made, size=rng.integers(0, 3))]
    inputs = [value(name, ["n", WIDTH]) for name in ("x", "z")]
    outputs = [value(str(name), ["n", WIDTH]) for name in dict.fromkeys(outputs)]
    return build(builder.nodes, inputs, outputs, builder.constants, opset)


def random_rows(rng):
    return {name: rng.normal(size=(1, WIDTH)).astype(np.float32) for name in ("x", "z")}
