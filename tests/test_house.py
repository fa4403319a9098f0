"""The house: what is imported when, what is pinned where, and the linters."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from jaxtyping import TypeCheckError
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INSTALLED_BY_MAKE = ("lab", "colmap", "dev")
PRIVATE_PATH = re.compile(r"(?<![\w.~])/(?:work|home|Users|root)/\w")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)


def required_by_make() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"]
    return [
        Requirement(text) for text in PROJECT["dependencies"] + [r for name in INSTALLED_BY_MAKE for r in extras[name]]
    ]


def pins() -> dict[str, str]:
    lines = (line.strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def closure(requirements: list[Requirement]) -> Iterator[Requirement]:
    """The requirements and, through what is installed, all that they require in turn."""
    waiting, seen = list(requirements), set()
    while waiting:
        requirement = waiting.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        yield requirement
        for text in importlib.metadata.requires(requirement.name) or []:
            further = Requirement(text)
            if any(
                further.marker is None or further.marker.evaluate({"extra": extra})
                for extra in {"", *requirement.extras}
            ):
                waiting.append(further)


@pytest.mark.parametrize("module", ["crowdnerf_lab", "crowdnerf_lab.network.ue"])
def test_importing_the_package_or_the_ue_loads_no_torch(module: str):
    heavy = "torch plotly pydantic"
    done = run("-c", f"import sys, {module}; print([name for name in '{heavy}'.split() if name in sys.modules])")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_the_public_names_are_the_same_for_python_for_type_checkers_and_for_readers():
    import crowdnerf_lab as cn

    tree = ast.parse(Path(cn.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {
        alias.name: "" if node.module == "crowdnerf_lab" else node.module.removeprefix("crowdnerf_lab.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == {**cn._HOME, **dict.fromkeys(cn._MODULES, "")}
    assert sorted(cn.__all__) == sorted(typed)
    assert set(cn.__all__) <= set(dir(cn))


def test_every_public_name_is_there():
    import crowdnerf_lab as cn

    assert [name for name in cn.__all__ if getattr(cn, name, None) is None] == []
    with pytest.raises(AttributeError, match="no attribute 'teleport'"):
        _ = cn.teleport


def test_shapes_and_types_are_checked_while_testing():
    from crowdnerf_lab.cameras import look_at
    from crowdnerf_lab.metrics import psnr_of_mse

    with pytest.raises(TypeCheckError):
        look_at(torch.zeros(2, 2), torch.zeros(2, 3))
    with pytest.raises(TypeCheckError):
        psnr_of_mse("small")  # pyright: ignore[reportArgumentType]
    assert psnr_of_mse(1) == 0


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=["check", "format"])
def test_ruff_has_nothing_to_say(command: list[str]):
    done = run("-m", "ruff", *command, ".")
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright_has_nothing_to_say():
    done = run("-m", "pyright", "--pythonpath", sys.executable)
    assert done.returncode == 0, done.stdout + done.stderr


def test_everything_that_make_installs_is_pinned_to_what_is_installed():
    pinned = {canonicalize_name(name): version for name, version in pins().items()}
    needed = {canonicalize_name(requirement.name) for requirement in closure(required_by_make())}
    installed = {name: importlib.metadata.version(name).partition("+")[0] for name in needed}
    assert {name: pinned.get(name) for name in needed} == installed


def test_the_pins_are_versions_that_the_project_allows():
    pinned = {canonicalize_name(name): version for name, version in pins().items()}
    for requirement in required_by_make():
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_torch_is_named_on_pip_s_own_command_line_as_it_is_pinned():
    commands = [line for line in (ROOT / "Makefile").read_text().splitlines() if "pip install" in line]
    assert commands
    for command in commands:
        assert f"-c constraints.txt torch=={pins()['torch']} " in command


def test_the_conda_environment_agrees_with_the_project():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = {Requirement(text).name: Requirement(text) for text in environment["dependencies"] if isinstance(text, str)}
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    extras = PROJECT["optional-dependencies"]
    assert environment["channels"] == ["conda-forge"]
    assert str(conda["python"].specifier) == PROJECT["requires-python"]
    assert [str(conda["kaolin"].specifier)] == [str(Requirement(text).specifier) for text in extras["kaolin"]]
    assert pip == ["-e .[lab,colmap,video,faces,network]"]
    assert {"lab", "colmap", "video", "faces", "network"} <= extras.keys()


def test_kaolin_is_never_installed_by_another_extra():
    extras = PROJECT["optional-dependencies"]
    assert [name for name, texts in extras.items() if any("kaolin" in text for text in texts)] == ["kaolin"]


def test_no_tracked_file_names_a_private_folder():
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    found = []
    for name in listing.stdout.splitlines():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".yml", ".txt", ".json", ".ipynb", ""} and path.is_file():
            found += [name for line in path.read_text().splitlines() if PRIVATE_PATH.search(line)]
    assert found == []


def test_the_readme_links_to_what_is_there():
    text = (ROOT / "README.md").read_text()
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_readme_names_every_make_target_and_every_extra():
    text = (ROOT / "README.md").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [target for target in phony.split() if target != "help" and f"make {target}" not in text] == []
    assert [extra for extra in PROJECT["optional-dependencies"] if f"`{extra}`" not in text] == []
