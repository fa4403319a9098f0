"""Named tensors in one safetensors file, with what they are in its header; never pickle."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from crowdnerf_lab.files import write_atomically


class WeightsError(ValueError):
    """A file of weights that is damaged or holds something else; the message names it and the remedy."""


def write_tensors(path: Path, tensors: dict[str, Tensor], *, kind: str, header: dict[str, str] | None = None) -> Path:
    """Write tensors atomically; `kind` (name and version of the format) and the header's strings go with them."""
    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    meta = {"format": kind, **(header or {})}
    return write_atomically(Path(path), lambda temporary: save_file(plain, temporary, metadata=meta))


def kind_of(path: Path) -> str | None:
    """The `kind` that a file of tensors was written with. WeightsError when it is truncated or something else."""
    with _opened(path) as file:
        return (file.metadata() or {}).get("format")


def read_tensors(path: Path, *, kind: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a file of this `kind`. WeightsError when it is truncated or of another kind."""
    with _opened(path) as file:
        header = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if header.get("format") != kind:
        raise WeightsError(f"{path} holds {header.get('format')!r}, not {kind!r}; give the right file")
    return tensors, header


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose name begins with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"cannot read {path}: {error}; fetch it again, or delete it and make it again") from error
