"""`python -m overspill.demo` is `overspill demo`."""

import sys

from overspill.cli import main

main(["demo", *sys.argv[1:]], prog_name="python -m overspill")
