"""Avatar bundles on disk: opened only when whole, unchanged and inside their own folder.

A bundle is a folder (``ada.avatar/``) with ``manifest.json``, ``.onnx`` graphs and
``.safetensors`` tensors. Nothing in it is executed and nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from talksplat.atomic import replace_folder, staging_path
from talksplat.errors import BundleError, InputError, OutputError
from talksplat.manifest import (
    MANIFEST_NAME,
    FileSpec,
    GraphSpec,
    Manifest,
    TensorSpec,
    format_manifest,
    parse_manifest,
)
from talksplat.onnx_file import check_onnx_file

_SUFFIXES = (".onnx", ".safetensors")
_MAX_MANIFEST_BYTES = 4 * 2**20
_EXPORT_AGAIN = "Copy the bundle again, or export the avatar again."


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: every file that its manifest lists is present and has the stated hash."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Bundle:
        """Read the manifest and check every file it lists: place, size, sha256, kind.

        Raises:
            BundleError: missing, damaged, unsafe, or from a newer schema; says which file.
        """
        root = Path(path)
        manifest = parse_manifest(_read_manifest(root))
        for name, spec in manifest.files.items():
            _check_file(_resolve(root, name), name, spec)
        for name, graph in manifest.graphs.items():
            if graph.file not in manifest.files or not graph.file.endswith(".onnx"):
                raise BundleError(
                    f"Graph {name!r} of {root} expects an .onnx file listed under 'files', found "
                    f"{graph.file[:80]!r}. {_EXPORT_AGAIN}"
                )
        return cls(root, manifest)

    def graph_file(self, graph: str) -> Path:
        """Path of the ``.onnx`` file of a graph.

        Raises:
            BundleError: the bundle has no such graph.
        """
        if graph not in self.manifest.graphs:
            found = ", ".join(self.manifest.graphs) or "none"
            raise BundleError(f"{self.path} has no graph {graph!r}; it has: {found}.")
        return _resolve(self.path, self.manifest.graphs[graph].file)

    def tensors(self, file: str) -> dict[str, NDArray[Any]]:
        """All tensors of one ``.safetensors`` file.

        Raises:
            BundleError: the manifest does not list the file, it is not a safetensors file, or it
                holds NaN or infinity.
        """
        if file not in self.manifest.files:
            raise BundleError(f"{self.path} has no file {file!r}. {_EXPORT_AGAIN}")
        try:
            tensors = safetensors.numpy.load_file(_resolve(self.path, file))
        except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
            raise BundleError(f"{file} of {self.path} cannot be read: {error}.") from error
        for name, tensor in tensors.items():
            if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
                raise BundleError(
                    f"Tensor {name!r} in {file} of {self.path} holds NaN or infinity; expected "
                    "finite numbers. Check the checkpoint and export it again."
                )
        return tensors

    def constants(self, graph: str) -> dict[str, NDArray[Any]]:
        """The inputs of a graph that never change for this avatar; may be none.

        They are in ``baked_<graph>.safetensors``; those of D3-Talker's ``motion`` in
        ``baked.safetensors``.

        Raises:
            BundleError: as :meth:`tensors`.
        """
        file = f"baked_{graph}.safetensors"
        if (self.manifest.family, graph) == ("d3talker", "motion"):
            file = "baked.safetensors"
        return self.tensors(file) if file in self.manifest.files else {}


class BundleWriter:
    """Builds a bundle beside its destination and moves it there only when it is complete.

    ::

        with BundleWriter("ada.avatar") as writer:
            writer.add_graph("motion", model_bytes)
            writer.add_tensors("baked.safetensors", {"face_general": array})
            bundle = writer.stage(manifest)           # a whole bundle, to measure parity on
            writer.commit(replace(manifest, parity=measured))

    Leaving the ``with`` block without ``commit`` removes everything that was written.

    Args:
        path: the folder to make. If it exists it must be a bundle, of whatever version and with
            nothing else in it, and ``overwrite`` be true.
        overwrite: replace an existing bundle, at the moment of ``commit``.

    Raises:
        OutputError: the destination exists or cannot be written (disk full included).
    """

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        self.path = Path(path)
        if self.path.exists() and not (self.path / MANIFEST_NAME).is_file():
            raise OutputError(
                f"{self.path} exists and is not an avatar bundle; choose another path or remove it."
            )
        if self.path.exists() and not overwrite:
            raise OutputError(f"{self.path} exists; remove it or ask to overwrite it.")
        if strangers := _strangers(self.path):
            raise OutputError(
                f"{self.path} holds more than an avatar bundle does ({', '.join(strangers[:3])}), "
                "which overwriting would remove; choose another path or move that away."
            )
        self._staging = staging_path(self.path)
        try:
            self._staging.mkdir(parents=True)
        except OSError as error:
            raise OutputError(f"Cannot write {self.path}: {error}.") from error
        self._graphs: dict[str, GraphSpec] = {}
        self._files: dict[str, FileSpec] = {}

    def add_graph(self, name: str, model: bytes) -> GraphSpec:
        """Store an ONNX model as ``<name>.onnx``; its tensors are read from the model itself.

        Raises:
            BundleError: not a self-contained ONNX model that ONNX Runtime accepts.
            OutputError: it cannot be written.
        """
        file = f"{name}.onnx"
        path = self._write(file, model)
        check_onnx_file(path)
        self._graphs[name] = describe_graph(path)
        return self._graphs[name]

    def add_tensors(self, file: str, tensors: dict[str, NDArray[Any]]) -> None:
        """Store arrays as one ``.safetensors`` file, named with its suffix.

        Raises:
            InputError: the name has another suffix or leaves the bundle.
            OutputError: it cannot be written.
        """
        if not file.endswith(".safetensors"):
            raise InputError(f"Expected a name ending in .safetensors, found {file!r}.")
        contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        self._write(file, safetensors.numpy.save(contiguous))

    def stage(self, manifest: Manifest) -> Bundle:
        """Write the manifest and open the staged bundle; ``graphs`` and ``files`` are filled in.

        Raises:
            BundleError: the manifest or a file would be refused by :meth:`Bundle.open`.
            OutputError: it cannot be written.
        """
        complete = replace(manifest, graphs=dict(self._graphs), files=dict(self._files))
        self._write_bytes(self._staging / MANIFEST_NAME, format_manifest(complete).encode())
        return Bundle.open(self._staging)

    def commit(self, manifest: Manifest) -> Bundle:
        """Stage the manifest and move the finished bundle to its path in one step.

        Raises:
            BundleError, OutputError: as :meth:`stage`; the destination is then untouched.
        """
        self.stage(manifest)
        replace_folder(self._staging, self.path)
        return Bundle.open(self.path)

    def __enter__(self) -> BundleWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        shutil.rmtree(self._staging, ignore_errors=True)

    def _write(self, file: str, data: bytes) -> Path:
        try:
            path = _resolve(self._staging, file)
        except BundleError as error:
            raise InputError(str(error)) from error
        self._write_bytes(path, data)
        self._files[file] = FileSpec(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        return path

    def _write_bytes(self, path: Path, data: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise OutputError(f"Cannot write {self.path}: {error}.") from error


def _strangers(path: Path) -> list[str]:
    """What a folder holds that no bundle of any version does."""
    if not path.exists():
        return []
    return sorted(
        entry.name
        for entry in path.iterdir()
        if entry.is_symlink()
        or not entry.is_file()
        or (entry.name != MANIFEST_NAME and entry.suffix not in (".onnx", ".safetensors"))
    )


def describe_graph(path: Path) -> GraphSpec:
    """Names, dtypes and shapes of an ONNX file's tensors, as ONNX Runtime reads them.

    Raises:
        BundleError: ONNX Runtime refuses the file.
    """
    from talksplat.backends.onnxruntime_cpu import graph_tensors, open_session

    inputs, outputs = graph_tensors(open_session(path, threads=1))
    return GraphSpec(file=path.name, inputs=inputs, outputs=outputs)


def describe_tensor(spec: TensorSpec) -> str:
    """``pcm float32 [1, samples]``: a tensor for a human."""
    return f"{spec.name} {spec.dtype} [{', '.join(map(str, spec.shape))}]"


def _read_manifest(root: Path) -> str:
    if not root.is_dir():
        kind = "a file" if root.exists() else "nothing"
        raise BundleError(
            f"Expected an avatar bundle (a folder with {MANIFEST_NAME}) at {root}, found {kind}."
        )
    path = _resolve(root, MANIFEST_NAME)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_MANIFEST_BYTES:
            raise BundleError(
                f"{path} is not a manifest: expected a file of at most "
                f"{_MAX_MANIFEST_BYTES} bytes, found {status.st_size} bytes."
            )
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        raise BundleError(f"{root} has no {MANIFEST_NAME}: it is not an avatar bundle.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} cannot be read: {error}. {_EXPORT_AGAIN}") from error


def _resolve(root: Path, name: str) -> Path:
    """The path of a file of the bundle.

    Raises:
        BundleError: the name is absolute, climbs out, or a symbolic link leads out.
    """
    relative = PurePosixPath(name)
    unsafe = (
        not name.isprintable()
        or any(character in name for character in '\\:*?"<>|')
        or relative.is_absolute()
        or not relative.parts
        or ".." in relative.parts
    )
    path = root / relative
    if unsafe or not path.resolve().is_relative_to(root.resolve()):
        raise BundleError(
            f"The path {name[:200]!r} leaves the bundle {root}; expected a plain relative path. "
            "Do not use this bundle."
        )
    return path


def _check_file(path: Path, name: str, spec: FileSpec) -> None:
    if path.suffix not in _SUFFIXES:
        raise BundleError(
            f"{name!r} is listed in {MANIFEST_NAME}; a bundle holds {' and '.join(_SUFFIXES)} "
            "files only. Do not use this bundle."
        )
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path} is not a regular file. {_EXPORT_AGAIN}")
        if status.st_size != spec.bytes:
            raise BundleError(
                f"{path} is damaged: expected {spec.bytes} bytes, found {status.st_size}. "
                f"{_EXPORT_AGAIN}"
            )
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise BundleError(f"{path} is missing. {_EXPORT_AGAIN}") from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error}. {_EXPORT_AGAIN}") from error
    if digest != spec.sha256:
        raise BundleError(
            f"{path} is damaged or was changed: expected sha256 {spec.sha256[:16]}…, found "
            f"{digest[:16]}…. {_EXPORT_AGAIN}"
        )
    if path.suffix == ".onnx":
        check_onnx_file(path)
