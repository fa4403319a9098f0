"""The built files are those of the sources in web/: complete, licensed, and small enough to be package data."""

import gzip
import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest

from crowdnerf_lab.widgets import built
from crowdnerf_lab.widgets.built import RUNTIME, STATIC, BuiltFileError, built_file

WEB = Path(__file__).resolve().parents[2] / "web"
RECORD = json.loads((STATIC / "built.json").read_text())
FILES = RECORD["files"]
MOST_BYTES = 5_000_000
"""Of all built files together, compressed."""


@pytest.mark.parametrize("name", FILES)
def test_a_built_file_is_what_was_built(name: str) -> None:
    content = built_file(name).read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (FILES[name]["bytes"], FILES[name]["sha256"])


@pytest.mark.parametrize("name", FILES)
def test_a_built_file_is_as_new_as_its_sources(name: str) -> None:
    found = {source: hashlib.sha256((WEB / source).read_bytes()).hexdigest() for source in FILES[name]["sources"]}
    stale = [source for source, digest in FILES[name]["sources"].items() if found[source] != digest]
    assert not stale, f"build it again: node web/build.mjs {FILES[name]['entry']}"


def test_nothing_else_lies_among_the_built_files() -> None:
    assert {path.name for path in STATIC.iterdir()} == {*FILES, "built.json"}


def test_no_source_is_built_into_nothing() -> None:
    used = {source for about in FILES.values() for source in about["sources"]}
    sources = {path.relative_to(WEB).as_posix() for path in (WEB / "src").rglob("*") if path.is_file()}
    assert sources <= used


def test_versions_are_exact_and_those_that_were_built_with() -> None:
    package = json.loads((WEB / "package.json").read_text())
    versions = package["dependencies"] | package["devDependencies"]
    assert versions == RECORD["packages"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in versions.values())
    locked = json.loads((WEB / "package-lock.json").read_text())["packages"]
    assert {name: locked[f"node_modules/{name}"]["version"] for name in versions} == versions
    assert all("integrity" in about and "resolved" not in about for name, about in locked.items() if name)


def test_the_package_data_is_small() -> None:
    sizes = {name: len(gzip.compress(built_file(name).read_bytes())) for name in FILES}
    assert sum(sizes.values()) < MOST_BYTES, sizes


def test_the_runtime_is_web_assembly_with_its_licence_beside_it() -> None:
    assert gzip.decompress(built_file(RUNTIME).read_bytes())[:4] == b"\0asm"
    licence = built_file("LICENSE.onnxruntime-web").read_text()
    assert "MIT License" in licence
    assert "Microsoft" in licence
    assert b"protobuf" in gzip.decompress(built_file("NOTICES.onnxruntime-web.gz").read_bytes())


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith((".js", ".html", ".css"))])
def test_a_built_file_names_no_address_that_it_could_load_from(name: str) -> None:
    text = built_file(name).read_text()
    loads = re.findall(r"""(?:\bsrc=|\bhref=|url\(|@import|\bimport\(|\bfrom)\s*["'`]?(https?:)?//[^\s"'`)]+""", text)
    assert not loads


@pytest.mark.skipif(not (WEB / "node_modules").is_dir(), reason="needs node's packages: npm ci --prefix web")
def test_the_types_that_the_sources_declare_hold() -> None:
    done = subprocess.run(["npm", "run", "--silent", "check"], cwd=WEB, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_missing_file_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(built, "STATIC", tmp_path)
    with pytest.raises(BuiltFileError, match=r"explorer\.js .* node web/build\.mjs"):
        built_file("explorer.js")
