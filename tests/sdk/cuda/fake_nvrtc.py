"""An NVRTC that compiles nothing: what it gives names what it was given."""
# ruff: noqa: N802 (the library's own names)

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from cuda.bindings import nvrtc as real

SUCCESS = real.nvrtcResult.NVRTC_SUCCESS


@dataclass
class _Program:
    source: bytes
    options: tuple[bytes, ...] = ()


@dataclass
class FakeNvrtc:
    """What ``from cuda.bindings import nvrtc`` gives in a test.

    Attributes:
        version: of the library; None if there is none.
        architectures: what it compiles for.
        refuses: what its log says of every source; None if it compiles.
        compiled: options of every compilation.
    """

    version: tuple[int, int] | None = (13, 0)
    architectures: tuple[int, ...] = (75, 80, 86, 89, 90, 100, 120)
    refuses: bytes | None = None
    compiled: list[tuple[bytes, ...]] = field(default_factory=list)

    def nvrtcVersion(self) -> tuple[Any, int, int]:
        if self.version is None:
            raise RuntimeError("Failed to dlopen libnvrtc.so.13")
        return SUCCESS, *self.version

    def nvrtcGetSupportedArchs(self) -> tuple[Any, list[int]]:
        return SUCCESS, list(self.architectures)

    def nvrtcCreateProgram(
        self, source: bytes, name: bytes, count: int, headers: Any, names: Any
    ) -> tuple[Any, _Program]:
        return SUCCESS, _Program(source)

    def nvrtcCompileProgram(
        self, program: _Program, count: int, options: list[bytes]
    ) -> tuple[Any]:
        assert count == len(options)
        self.compiled.append(tuple(options))
        program.options = tuple(options)
        if self.refuses is not None:
            return (real.nvrtcResult.NVRTC_ERROR_COMPILATION,)
        return (SUCCESS,)

    def nvrtcGetCUBINSize(self, program: _Program) -> tuple[Any, int]:
        return SUCCESS, len(self._cubin(program))

    def nvrtcGetCUBIN(self, program: _Program, out: bytearray) -> tuple[Any]:
        out[:] = self._cubin(program)
        return (SUCCESS,)

    def nvrtcGetPTXSize(self, program: _Program) -> tuple[Any, int]:
        return SUCCESS, len(self._ptx(program))

    def nvrtcGetPTX(self, program: _Program, out: bytearray) -> tuple[Any]:
        out[:] = self._ptx(program)
        return (SUCCESS,)

    def nvrtcGetProgramLogSize(self, program: _Program) -> tuple[Any, int]:
        return SUCCESS, len(self.refuses or b"") + 1

    def nvrtcGetProgramLog(self, program: _Program, out: bytearray) -> tuple[Any]:
        out[:] = (self.refuses or b"") + b"\0"
        return (SUCCESS,)

    def nvrtcDestroyProgram(self, program: _Program) -> tuple[Any]:
        return (SUCCESS,)

    @staticmethod
    def _cubin(program: _Program) -> bytes:
        inputs = hashlib.sha256(program.source + b"\0".join(program.options))
        return b"\x7fELF fake " + inputs.hexdigest().encode()

    def _ptx(self, program: _Program) -> bytes:
        return b".version 8.0\n// " + self._cubin(program) + b"\0"
