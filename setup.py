"""Compile the kernels in C for each instruction set of this kind of machine, if there is a C compiler.

Everything else about the package stands in pyproject.toml.
"""

import platform
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

X86 = {"avx2": ["-mavx2", "-mfma"], "avx512": [f"-mavx512{part}" for part in ("f", "dq", "bw", "vl")]}
X86["avx512"] += ["-mfma", "-mprefer-vector-width=512"]
KERNELS = "mnist_lightning/models/kernels"


class build_libraries(build_ext):  # noqa: N801  # setuptools names commands like this
    """Build plain libraries, which ctypes loads, where setuptools would build modules of Python."""

    def get_ext_filename(self, fullname: str) -> str:
        """Return the path of a library in the package, the same for every version of Python."""
        return fullname.replace(".", "/") + ".so"


def library(name: str, flags: list[str]) -> Extension:
    """Return the library for an instruction set; without a compiler, or one that knows the flags, it is left out."""
    return Extension(
        f"{KERNELS.replace('/', '.')}.{name}",
        [f"{KERNELS}/conv_pool_relu.c"],
        # OpenMP at compile time only: when the library is loaded, it takes the functions from torch's own OpenMP.
        extra_compile_args=["-std=c11", "-O3", "-g0", "-ffp-contract=fast", "-fopenmp", "-Wno-psabi", *flags],
        optional=True,
    )


is_x86 = platform.machine().lower() in ("x86_64", "amd64")
variants = {"baseline": [], **(X86 if is_x86 else {})}
setup(
    cmdclass={"build_ext": build_libraries},
    ext_modules=[] if sys.platform == "win32" else [library(name, flags) for name, flags in variants.items()],
)
