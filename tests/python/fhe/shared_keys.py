"""Keys are slow to make: circuits of equal parameters share them."""

from fhelearn.backends.concrete import Circuit, Keys

_made: dict[str, Keys] = {}


def with_keys(circuit: Circuit) -> Circuit:
    """The circuit, with keys that fit its parameters."""
    circuit.keys = _made.get(circuit.parameters)
    _made[circuit.parameters] = circuit.keygen()
    return circuit
