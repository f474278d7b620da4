"""Typed errors. Every message says what was expected, what was found and what to do."""

from __future__ import annotations


class TalksplatError(Exception):
    """Base of every error that talksplat raises on purpose.

    ``str(error)`` is one readable sentence or two; the command line prints it as it is and exits
    with status 1.
    """


class BundleError(TalksplatError):
    """An avatar bundle is missing, damaged, unsafe or from a newer schema."""


class CheckpointError(TalksplatError):
    """A torch checkpoint is missing, damaged, unsafe or not of a known family."""


class AudioError(TalksplatError):
    """Audio cannot be read, or its samples are not usable."""


class InputError(TalksplatError, ValueError):
    """An argument has a wrong shape, dtype or range."""


class BackendError(TalksplatError):
    """A backend is not installed, does not match, or failed while running a graph."""


class NoDriverError(BackendError):
    """There is no NVIDIA driver, or nothing is installed that speaks to one."""


class DeviceLostError(BackendError):
    """A GPU failed in the middle of work: what it held is gone. The process can go on.

    What was using the device raises this from then on, and can only be closed; load the avatar
    again to begin anew.
    """


class PluginMissingError(BackendError):
    """TensorRT's plugin was not built, was not found, or is no plugin."""


class PluginMismatchError(BackendError):
    """TensorRT's plugin was built for another TensorRT, or for another talksplat."""


class OutputError(TalksplatError):
    """A result could not be written; nothing half-written was left behind."""


class VerificationError(TalksplatError):
    """A bundle computes something else than its checkpoint, beyond the manifest's tolerance."""
