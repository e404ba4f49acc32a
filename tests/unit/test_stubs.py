"""The stubs of the compiled core against the binary: no name, no parameter and no read-only attribute is in one and not in the other."""

from __future__ import annotations

import ast
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import overspill
from overspill import RateLimit
from overspill._core import frames, gate, hot, lane, lanes, limiter, parcel, places, record, segmap, turns, waiters

CORE = Path(overspill.__file__).parent / "_core"
MODULES = {
    "frames": frames, "limiter": limiter, "record": record, "segmap": segmap, "lane": lane, "gate": gate, "waiters": waiters, "turns": turns,
    "parcel": parcel, "lanes": lanes, "places": places, "hot": hot,
}

# What Cython gives every class and module of its own accord.
CYTHONS_OWN = r""".*__(reduce|setstate)_cython__
.*\.__test__
.*\.__pyx_capi__
"""


def a_map() -> segmap.SegmentMap:
    return segmap.SegmentMap(1, 2, 64, 4096, 8192, True)


INSTANCES: dict[str, Any] = {
    "Limiter": lambda: limiter.Limiter(RateLimit(1.0)),
    "Scan": lambda: record.scan(b"", 0, 0, 0),
    "SegmentMap": a_map,
    "Run": lambda: lane.Run(a_map(), 128),
    "Lane": lambda: lane.Lane(128),
    "Parcel": lambda: parcel.Parcel(b"x", True, 0, 0, b"x", 1, 128),
    "Frames": lambda: frames.Frames(b"a\nb", 3, False),
    "Passed": lambda: hot.Passed(frames.Frames(b"a\nb", 3, False), a_map()),
    "Claim": lambda: lanes.Claim.__new__(lanes.Claim),
    "HotQueue": hot.HotQueue,
    "Places": places.Places,
    "Lanes": lanes.Lanes,
    "Head": lambda: hot.HotQueue()._head,
    "Gate": lambda: hot.HotQueue()._tail,
    "Soon": lambda: hot.HotQueue()._tail.soon(),
    "IfFree": lambda: gate.IfFree(threading.Lock()),
    "Waiter": waiters.Waiter,
    "Waiters": lambda: hot.HotQueue()._takers,
    "Turns": lambda: turns.Turns(limiter.Limiter(RateLimit(1.0))),
    "Turn": lambda: turns.Turns(limiter.Limiter(RateLimit(1.0))).turn(1),
    "Place": lambda: hot.HotQueue()._takers.place(),
}


def stub(name: str) -> ast.Module:
    return ast.parse((CORE / f"{name}.pyi").read_text(encoding="utf-8"))


def classes(tree: ast.Module) -> list[ast.ClassDef]:
    return [node for node in tree.body if isinstance(node, ast.ClassDef)]


def names_in(body: list[ast.stmt]) -> set[str]:
    named = {node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    return named | {node.target.id for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}


def own(names: set[str]) -> set[str]:
    return {name for name in names if not name.startswith("__")}


def test_stubtest_finds_no_difference(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.write_text(CYTHONS_OWN)
    run = subprocess.run(
        [
            sys.executable, "-m", "mypy.stubtest", "overspill._core", "--concise", "--ignore-disjoint-bases", "--ignore-unused-allowlist",
            "--allowlist", str(allowed),
        ],
        cwd=tmp_path, env={"PYTHONPATH": str(CORE.parents[1]), "PATH": ""}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("name", MODULES)
def test_functions_and_classes_are_the_same(name: str) -> None:
    made_here = {
        key for key, value in vars(MODULES[name]).items() if getattr(value, "__module__", None) == MODULES[name].__name__
    }
    assert own({node.name for node in stub(name).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}) == own(made_here)


@pytest.mark.parametrize(("module", "cls"), [(name, cls) for name in MODULES for cls in classes(stub(name))], ids=lambda part: getattr(part, "name", part))
def test_attributes_are_the_same_private_ones_too(module: str, cls: ast.ClassDef) -> None:
    assert own(names_in(cls.body)) == own(set(vars(getattr(MODULES[module], cls.name))))


@pytest.mark.parametrize(("module", "cls"), [(name, cls) for name in MODULES for cls in classes(stub(name))], ids=lambda part: getattr(part, "name", part))
def test_what_the_stub_calls_read_only_is_and_the_rest_is_not(module: str, cls: ast.ClassDef) -> None:
    instance = INSTANCES[cls.name]()
    for node in cls.body:
        if isinstance(node, ast.FunctionDef) and any(isinstance(mark, ast.Name) and mark.id == "property" for mark in node.decorator_list):
            with pytest.raises(AttributeError):
                setattr(instance, node.name, getattr(instance, node.name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            setattr(instance, node.target.id, getattr(instance, node.target.id))
