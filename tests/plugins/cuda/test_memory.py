"""No kernel reads or writes beside an array, whatever it is given: the address and undefined
behaviour sanitizers watch the kernels on the host."""

from __future__ import annotations

import subprocess

import pytest
from tests.plugins.cuda.host.library import GAUSSIAN_KERNELS, HERE, PLUGINS

SANITIZERS = (
    "-fsanitize=address,undefined,float-cast-overflow",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """Lines of guarded_frames.cpp: name, status, picture."""
    program = tmp_path_factory.mktemp("guarded") / "frames"
    flags = ("-O1", "-g", "-std=c++20", "-Wno-unknown-pragmas", f"-I{PLUGINS}", *SANITIZERS)
    kernels = program.with_suffix(".o")
    emulated = ("-include", str(HERE / "cuda_on_host.h"), "-x", "c++")
    run("c++", *flags, *emulated, "-c", str(GAUSSIAN_KERNELS), "-o", str(kernels))
    sources = (HERE / "guarded_frames.cpp", HERE / "cuda_on_host.cpp")
    plan = PLUGINS / "gaussian_rasterizer" / "cuda" / "plan.cpp"
    # Kernels are found by name in the program itself.
    run(
        "c++", *flags, "-rdynamic", *map(str, (*sources, plan, kernels)), "-ldl", "-o", str(program)
    )
    return [line.split() for line in run(str(program)).splitlines()]


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "cannot find -lasan" in done.stderr or "cannot find -lubsan" in done.stderr:
        pytest.skip("this compiler has no sanitizers")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return done.stdout


def of(frames: list[list[str]], name: str) -> list[list[str]]:
    found = [line[1:] for line in frames if line[0] == name]
    assert found, name
    return found


@pytest.mark.parametrize(
    "name", ["plain", "channels", "halves", "harmonics", "long_list", "large", "no_gaussians"]
)
def test_frames_touch_only_their_own_memory(frames: list[list[str]], name: str) -> None:
    for bad, needed, room, picture in of(frames, name):
        assert bad == "0"
        assert int(needed) <= int(room)
        assert picture == "picture"


def test_a_list_without_room_is_not_written_elsewhere(frames: list[list[str]]) -> None:
    for bad, needed, room, picture in of(frames, "overflow"):
        assert bad == "0"
        assert int(needed) > int(room)
        assert picture == "none"


def test_what_is_not_finite_reaches_no_address(frames: list[list[str]]) -> None:
    found = of(frames, "not_finite")
    assert len(found) == 3 * 7
    assert all(int(line[0]) > 0 and line[3] == "none" for line in found)


def test_extremes_reach_no_address(frames: list[list[str]]) -> None:
    assert len(of(frames, "extreme")) == 3 * 6 * 4
