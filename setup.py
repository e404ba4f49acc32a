"""Builds the compiled core. Everything else about the package is in pyproject.toml.

A failed build fails the install: there is no slow twin to fall back to.
"""
import os
import platform
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

# What is declared inline for the hot way is inlined, its check code included: a call costs a batch 5 ns an item.
compile_args = ["-O2", "--param=max-inline-insns-single=400", "-fno-strict-aliasing", "-Wall", "-Wno-unused-function"]
link_args = []
if platform.machine() in ("x86_64", "AMD64"):
    compile_args.append("-msse4.2")  # the CRC-32C instruction, in every x86-64 since 2008; checked on import
elif platform.machine() == "aarch64":
    compile_args.append("-march=armv8-a+crc")
if os.environ.get("OVERSPILL_SANITIZE"):  # `make asan`
    compile_args += ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined"]
    link_args.append("-fsanitize=address,undefined")

core = "src/overspill/_core"
modules = ["limiter", "record", "frames", "segmap", "lane", "gate", "waiters", "turns", "parcel", "lanes", "places", "hot"]

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"overspill._core.{name}",
                [f"{core}/{name}.pyx"],
                include_dirs=[core],
                depends=[f"{core}/crc32c.h", *glob(f"{core}/*.pxd")],
                extra_compile_args=compile_args,
                extra_link_args=link_args,
            )
            for name in modules
        ],
        build_dir="build",
        compiler_directives={
            "language_level": "3",
            "boundscheck": True,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "embedsignature": True,
        },
    )
)
