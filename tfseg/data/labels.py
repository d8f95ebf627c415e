"""Label maps: which categories there are, their ids, and the domain that each belongs to."""

import difflib
import operator
import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, SupportsIndex

from tfseg.errors import InputError
from tfseg.files import read_json

Domain = Literal["source", "target"]
DOMAINS: tuple[Domain, ...] = ("source", "target")
BACKGROUND_ID = 0
IGNORE_ID = 255
MAX_LABELS = IGNORE_ID - 1


@dataclass(frozen=True)
class Label:
    """One category.

    Attributes:
        id: 1..L; also the pixel value in masks.
        name: what people and files call it.
        domain: "source" (has pixel masks) or "target" (has image labels only).
        aliases: other names under which datasets list it.
    """

    id: int
    name: str
    domain: Domain
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelMap:
    """All categories of a pair of datasets, ordered by id 1..L (SPEC 4.1).

    ```python
    >>> label_map = LabelMap("pets", (Label(1, "cat", "target"), Label(2, "dog", "source", ("hound",))))
    >>> label_map.resolve(["hound", 1])
    (2, 1)

    ```

    Attributes:
        name: of the map, for people.
        labels: one `Label` for each id, without gaps.
    """

    name: str
    labels: tuple[Label, ...]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "LabelMap":
        """Reads a label map from a JSON file.

        Raises:
            InputError: names the file, and what in it is wrong.
        """
        content = read_json(path, name=f"label map {path}")
        if isinstance(content, dict) and "name" not in content:
            content = {"name": Path(path).stem, **content}
        return cls.from_dict(content, where=f"label map {path}")

    @classmethod
    def from_dict(cls, content: Any, where: str = "label map") -> "LabelMap":
        """Checks and builds a label map from what `to_dict` gives.

        Args:
            content: `{"name": str, "labels": [{"id", "name", "domain", "aliases"}, ...]}`; without ids the
                labels are numbered 1..L in their order, and aliases may be left out.
            where: names the origin in error messages.

        Raises:
            InputError: ids are not 1..L (at most 254), or a name, alias or domain is wrong or
                there twice.
        """
        name = content.get("name") if isinstance(content, dict) else None
        if not isinstance(name, str) or not (is_name(name) or not name):
            raise InputError(f'{where}: must be an object with "name" (a string) and "labels"')
        entries = content.get("labels")
        if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_LABELS:
            raise InputError(f'{where}: "labels" must be a list of 1 to {MAX_LABELS} labels')
        if not any(isinstance(entry, dict) and "id" in entry for entry in entries):
            entries = [_numbered(entry, number) for number, entry in enumerate(entries, start=1)]
        labels = sorted((_label(entry, where) for entry in entries), key=lambda label: label.id)
        for expected, label in enumerate(labels, start=1):
            if label.id != expected:
                raise InputError(
                    f"{where}: ids must be 1 to {len(labels)}, each once; "
                    f"found {label.id} ({label.name}) where {expected} is due"
                )
        _refuse_duplicates(labels, where)
        return cls(content["name"], tuple(labels))

    def to_dict(self) -> dict[str, Any]:
        """The label map as `from_dict` takes it, ready for JSON."""
        return {
            "name": self.name,
            "labels": [
                {
                    "id": label.id,
                    "name": label.name,
                    "domain": label.domain,
                    "aliases": list(label.aliases),
                }
                for label in self.labels
            ],
        }

    @property
    def num_labels(self) -> int:
        """L, the number of categories of both domains."""
        return len(self.labels)

    def label(self, label_id: int) -> Label:
        """The label with id `label_id`.

        Raises:
            InputError: the id is outside 1..L.
        """
        if not 1 <= label_id <= self.num_labels:
            raise InputError(f"label id {label_id}: {self.name} has the ids 1 to {self.num_labels}")
        return self.labels[label_id - 1]

    def find(self, name: str) -> Label | None:
        """The label of this exact name or alias, or None."""
        return self._by_name.get(name)

    def ids(self, domain: Domain) -> tuple[int, ...]:
        """The ids of one domain, ascending."""
        return tuple(label.id for label in self.labels if label.domain == domain)

    def allowed_ids(self, domain: Domain | Literal["all"] = "target") -> tuple[int, ...]:
        """The ids that a classifier may predict, ascending.

        Args:
            domain: `target`, `source` or `all`.

        Raises:
            InputError: There is no such domain, or it has no label.
        """
        if domain not in ("target", "source", "all"):
            raise InputError(f"label domain {domain!r}: allowed are target, source, all")
        ids = tuple(label.id for label in self.labels if domain in ("all", label.domain))
        if not ids:
            raise InputError(f"label domain {domain!r}: {self.name} has no label of it")
        return ids

    def resolve(self, labels: Iterable[int | str] | int | str) -> tuple[int, ...]:
        """Turns ids, names and aliases into ids, in the given order, each once.

        Args:
            labels: Ids or names; one alone may stand without a list.

        Raises:
            InputError: One is unknown; the message lists those that are allowed.
        """
        if isinstance(labels, (str, SupportsIndex)):
            labels = [labels]
        return tuple(dict.fromkeys(self._resolve(label) for label in labels))

    def _resolve(self, label: int | str) -> int:
        if isinstance(label, str):
            found = self.find(label)
            if found is not None:
                return found.id
            if not label.isdecimal():
                raise InputError(self._unknown(label))
        try:
            label_id = int(label) if isinstance(label, str) else operator.index(label)
        except (TypeError, ValueError) as error:
            raise InputError(self._unknown(label)) from error
        if not 1 <= label_id <= self.num_labels:
            raise InputError(self._unknown(label))
        return label_id

    def _unknown(self, label: object) -> str:
        names = [entry.name for entry in self.labels]
        close = difflib.get_close_matches(str(label), names, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        return (
            f"label {label!r} is not in {self.name}{hint}; "
            f"allowed are the ids 1 to {self.num_labels} and the names {', '.join(names)}"
        )

    def added_to(self, base: "LabelMap") -> tuple[int, ...]:
        """The ids that this map has beyond those of `base`, ascending.

        Raises:
            InputError: a label of `base` is missing here, or has another name or domain.
        """
        for ours, label in zip(self.labels, base.labels, strict=False):
            if (ours.name, ours.domain) != (label.name, label.domain):
                raise InputError(
                    f"label {label.id} is {ours.name} ({ours.domain}), it must stay {label.name} "
                    f"({label.domain}): new categories get the ids from {base.num_labels + 1} on"
                )
        if self.num_labels < base.num_labels:
            raise InputError(
                f"{self.num_labels} labels, where there were {base.num_labels}: "
                "old categories must stay, with their ids"
            )
        return tuple(range(base.num_labels + 1, self.num_labels + 1))

    def names(self, domain: Domain) -> tuple[str, ...]:
        """The names of one domain, in the order of their ids."""
        return tuple(label.name for label in self.labels if label.domain == domain)

    @cached_property
    def _by_name(self) -> dict[str, Label]:
        return {name: label for label in self.labels for name in (label.name, *label.aliases)}


def is_name(value: Any) -> bool:
    """Whether it is a string that can name something: not empty, no control characters, no half surrogates.

    Spaces of all kinds and joiners are fine: macOS puts U+202F into the names of its screenshots.
    """
    return (
        isinstance(value, str)
        and bool(value)
        and not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in value)
    )


def _numbered(entry: Any, number: int) -> Any:
    return {**entry, "id": number} if isinstance(entry, dict) else entry


def _label(entry: Any, where: str) -> Label:
    if not isinstance(entry, dict):
        raise InputError(f"{where}: each label must be an object, found {entry!r}")
    label_id, name, domain = entry.get("id"), entry.get("name"), entry.get("domain")
    aliases = entry.get("aliases", [])
    if not isinstance(label_id, int) or isinstance(label_id, bool):
        raise InputError(f"{where}: label {name!r}: id must be a whole number, found {label_id!r}")
    where = f"{where}: label {label_id} ({name!r})"
    if not is_name(name) or not name.strip():
        raise InputError(
            f"{where}: name must be a string that is not empty and has no control characters, found {name!a}"
        )
    if domain not in DOMAINS:
        raise InputError(f"{where}: domain must be source or target, found {domain!r}")
    if not isinstance(aliases, list) or not all(isinstance(name, str) and name for name in aliases):
        raise InputError(f"{where}: aliases must be a list of names, found {aliases!r}")
    return Label(label_id, name, domain, tuple(aliases))


def _refuse_duplicates(labels: list[Label], where: str) -> None:
    seen: dict[str, Label] = {}
    for label in labels:
        for name in (label.name, *label.aliases):
            if name in seen:
                raise InputError(
                    f"{where}: the name {name!r} stands for the labels {seen[name].id} and "
                    f"{label.id}; names and aliases must differ"
                )
            seen[name] = label
