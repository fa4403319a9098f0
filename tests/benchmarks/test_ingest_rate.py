"""The benchmark of ingest measures what it says: photos that were generated, memory of every process."""

from pathlib import Path

import pytest

from benchmarks.captures import ingest as benchmark
from crowdnerf_lab.captures.photos import PhotoError, read_metadata, read_photo


def test_generated_photos_are_photos_and_five_files_are_not(tmp_path):
    benchmark.generate(tmp_path, 101)
    files = sorted(tmp_path.rglob("*.jpg"))
    assert len(files) == 106
    assert len({path.read_bytes() for path in files}) == 106
    good = [path for path in files if path.stem.isdecimal()]
    metadata = read_metadata(good[60])
    assert (metadata.width, metadata.height) == benchmark.SIZE
    assert metadata.position_wgs84 is not None
    for path in set(files) - set(good) - {tmp_path / "ue000/archive.jpg"}:
        with pytest.raises(PhotoError):
            read_photo(path)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is read from Linux's /proc")
def test_a_run_tells_photos_and_memory_of_all_its_processes(tmp_path):
    benchmark.generate(tmp_path / "upload", 4)
    run = benchmark.run(tmp_path / "upload", tmp_path / "event")
    assert (run.photos, run.refused) == (4, 0)
    assert run.rss_mb > 1.5 * run.parent_mb > 0
    assert run.parent_mb < run.pss_mb < run.rss_mb
