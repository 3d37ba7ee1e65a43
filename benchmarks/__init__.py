"""How long becoming a daemon takes: this library, its peers, and the limits, interleaved.

python -m benchmarks --help
"""
