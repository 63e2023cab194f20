"""What the door hands out: rows kept column by column, and three splits of them."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, Self, TypeVar

import torch


@dataclass
class Rows:
    """Rows kept column by column; the base of the sets below. `len`, slices, index tensors, masks and single numbers
    work as on a tensor, except that a single number gives a set of one row."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def __getitem__(self, index) -> Self:
        index = index.cpu() if isinstance(index, torch.Tensor) else index
        rows = torch.arange(len(self))[index].reshape(-1)
        chosen: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, torch.Tensor):
                chosen[field.name] = value[index] if isinstance(index, slice) else value[rows.to(value.device)]
            elif isinstance(value, list):
                chosen[field.name] = [value[row] for row in rows.tolist()]
        return replace(self, **chosen)

    def to(self, device: torch.device | str) -> Self:
        """The same rows with every tensor on `device`."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{k: v.to(device) for k, v in columns.items() if isinstance(v, torch.Tensor)})


@dataclass
class Pictures(Rows):
    """Labelled pictures: images uint8 (N, 3, H, W), labels int64 (N,), names of the classes; `name` for results and
    captions, `source` one of "built-in scenes", "folder", "cache", "hub"."""

    images: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]
    name: str
    source: str


@dataclass
class Captioned(Rows):
    """Pictures with captions: images uint8 (N, 3, H, W), captions (one list of strings per picture), ids (N)."""

    images: torch.Tensor
    captions: list[list[str]]
    ids: list[str]
    name: str
    source: str


@dataclass
class Masked(Rows):
    """Pictures with the mask of all annotated objects: images uint8 (N, 3, H, W), masks bool (N, H, W), the category of
    each object (one list per picture), ids (N)."""

    images: torch.Tensor
    masks: torch.Tensor
    objects: list[list[str]]
    ids: list[str]
    name: str
    source: str


@dataclass
class Recordings(Rows):
    """Short sounds: waves float32 (N, 32000) in [-1, 1] at 16 kHz, zero after `lengths` int64 (N,) samples; labels
    int64 (N,), names of the classes, ids (N)."""

    waves: torch.Tensor
    lengths: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]
    ids: list[str]
    name: str
    source: str


R = TypeVar("R", bound=Rows)


@dataclass
class Splits(Generic[R]):
    """train, val (for every choice) and test (once, for the number that is reported), disjoint; `note` says where less
    came than was asked for, else it is empty. Unpacks as `train, val, test = ...`."""

    train: R
    val: R
    test: R
    note: str = ""

    def __iter__(self) -> Iterator[R]:
        return iter((self.train, self.val, self.test))
