"""The rim of a program, where floats become integers and integers become floats again."""

from fhelearn.quantization.uniform import ColumnRange, UniformDecoder, UniformEncoder

__all__ = ["ColumnRange", "UniformDecoder", "UniformEncoder"]
