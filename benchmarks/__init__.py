"""Measurements of fhelearn against named peers; README.md states method, machine and results."""
