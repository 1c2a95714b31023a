"""Benchmarks: this package beside its peers, in one run, as ratios.

    python -m pip install -e '.[bench]'
    python -m tests.benchmarks [--only NAME …] [--engine real|local] [--rounds N] [--quick] [--json FILE] [--plot FILE]
    python -m tests.benchmarks --profile --only engine-1m

Absolute figures say much about the machine and little about the code, so every contestant of a row takes its turn in
every round, and what counts is the ratio of two contestants in the same round: its median, and how far it spreads.
Each measured thing runs in a fresh interpreter of its own.

Start at :mod:`.rows`: what is measured, and which goal it has. :mod:`.measuring` runs one contestant once, with
processes of :mod:`.processes` and peers of :mod:`.peers`; those run :mod:`.child` and a client of :mod:`.clients`.
"""
