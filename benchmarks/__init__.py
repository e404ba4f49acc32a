"""What Overspill costs, beside what its peers cost, measured in one run on one machine.

    python -m benchmarks                 everything, a few minutes; writes benchmarks/results/
    python -m benchmarks --quick         the same at small sizes, about a minute; writes nothing
    python -m benchmarks --only power    one trial

The way of a number: `__main__` reads the command, `scratch` finds a real disk, `trials` sets up what stands beside
what, `measures` holds every timed loop, `peers` and `ours` are what is measured, `fresh` is what must run in a
process of its own, `targets` says what we promised, `table` and `plot` show it.

Two rules. Nothing here passes or fails: a target that is missed is printed as missed, by how much. And nothing
here uses more of the queue than its public contract, so that a number can always be had by a user, too.
"""
