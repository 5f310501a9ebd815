"""Masks of people, as a file: what `bench cloak` learns once and lays on later photos, and `bench erase` takes off.

Whoever has the file can make, and where the attack allows it undo, such cloaks: like a key it is readable by its owner
alone, and it has a *fingerprint* that may be shown.
"""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from bench.contracts import Context, PersonMask
from bench.errors import DataError, UsageError
from bench.faces.pixels import Pixels, overlay_pixels
from bench.files import write_atomically
from bench.run import calls
from bench.run.stages.apply_masks import of_each_identity

FORMAT = "cloakbench-masks 1"

Mask = Mapping[str, Tensor]


@dataclass(frozen=True)
class MaskFile:
    """The masks of people, and what they were made by.

    Attributes:
        path: the file.
        attack: canonical name of the attack.
        made_with: digest of its code, files and surrogates, the dataset and the seed.
        fingerprint: 16 hexadecimal digits that tell files apart.
        masks: person's opaque id → mask.
    """

    path: Path
    attack: str
    made_with: str
    fingerprint: str
    masks: Mapping[str, Mask]

    def hidden_in(self, text: str) -> str:
        """Return the text: no secret of these is ever in one."""
        return text

    def with_mask(self, person: str, mask: Mask) -> MaskFile:
        """Return the file with one more mask, written before it is used.

        Another command may have added some meanwhile: they stay, and a person who has one by now keeps it.

        Raises:
            DataError: the file is damaged by now, or another one.
            StoreError: the disk is full or the folder cannot be written.
        """
        from filelock import FileLock

        with FileLock(_lock_of(self.path)):
            there = read(self.path) if self.path.exists() else self
            if there.fingerprint != self.fingerprint:
                raise DataError(f"{self.path} was replaced by another file of masks; give the command again")
            own = {name: value.cpu().contiguous() for name, value in mask.items()}
            grown = replace(there, masks={person: own, **there.masks})
            grown.write()
        return grown

    def write(self) -> None:
        """Write the file, readable by its owner alone.

        Raises:
            StoreError: the disk is full or the folder cannot be written.
        """
        head = {
            "format": FORMAT,
            "attack": self.attack,
            "made_with": self.made_with,
            "fingerprint": self.fingerprint,
        }
        named = {f"{who}/{name}": value for who, one in self.masks.items() for name, value in one.items()}
        # One entry: safetensors writes several in an order that changes from call to call.
        payload = safetensors.torch.save(named, metadata={"masks": json.dumps(head)})
        write_atomically(self.path, payload, "another file with --masks", _for_the_owner)

    def check_attack(self, attack: str) -> None:
        """Check that the masks were made by this attack.

        Raises:
            UsageError: they were not.
        """
        if self.attack != attack:
            raise UsageError(
                f"the masks in {self.path} were made by another attack: {self.attack}, and this is {attack}. Ask for "
                "the same, or name another file with --masks."
            )

    def check_growing(self, made_with: str) -> None:
        """Check that a further mask would be made as these were.

        Raises:
            UsageError: it would not.
        """
        if self.masks and self.made_with != made_with:
            raise UsageError(
                f"the masks in {self.path} were made by other code, weights, surrogates, dataset or seed of "
                f"{self.attack} (digest {self.made_with}, now {made_with}), and somebody here has none yet. Ask for "
                "the same, or name another file with --masks."
            )


def new(path: Path, attack: str, made_with: str) -> MaskFile:
    """Return a file without masks, with a fingerprint of its own; it is not written yet."""
    return MaskFile(path, attack, made_with, secrets.token_hex(8), {})


def read(path: Path) -> MaskFile:
    """Return the masks in a file.

    Raises:
        DataError: the file is missing, truncated or none of masks.
    """
    try:
        payload = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Give the file of masks that `bench cloak` made.") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder. Name the file of masks that `bench cloak` made.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Fix its permissions.") from None
    try:
        tensors = safetensors.torch.load(payload)
        head = _head(payload)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"{path} is no file of masks, or not whole ({type(error).__name__}). Restore it from a copy, or name a "
            "file that does not exist, and new masks are learnt."
        ) from None
    masks: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        person, _, tensor = name.partition("/")
        masks.setdefault(person, {})[tensor] = value
    return MaskFile(path, head["attack"], head["made_with"], head["fingerprint"], masks)


def _head(payload: bytes) -> dict[str, str]:
    """Return what `MaskFile.with_mask` wrote besides tensors.

    Raises:
        KeyError: it is not there.
        ValueError: it is of another form.
    """
    length = int.from_bytes(payload[:8], "little")
    head: dict[str, Any] = json.loads(json.loads(payload[8 : 8 + length])["__metadata__"]["masks"])
    fields = ("attack", "made_with", "fingerprint")
    if head["format"] != FORMAT or not all(isinstance(head[name], str) for name in fields):
        raise ValueError(head["format"])
    return {name: head[name] for name in fields}


def _lock_of(path: Path) -> Path:
    """Return the file that commands of this machine lock while they add to a file of masks."""
    name = sha256(str(path.resolve()).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"cloakbench-masks-{name}.lock"


def _for_the_owner(temporary: Path, path: Path) -> None:
    """Bring a file to its path, readable by its owner alone."""
    temporary.chmod(0o600)
    temporary.replace(path)


class Masking:
    """Lays masks on photos; a person who has none yet gets one, learnt from all their photos that are given.

    Args:
        attack: that learns masks.
        file: the masks there are; grows.
        people: ids of the people whose masks are kept. A face beside theirs is somebody seen once, and its mask is not.

    Attributes:
        learnt: how many masks were added to the file.
    """

    def __init__(self, attack: PersonMask, file: MaskFile, people: frozenset[str]) -> None:
        self.attack, self.file, self.learnt, self._people = attack, file, 0, people

    def cloak(self, pixels: Pixels, ctx: Context) -> Pixels:
        """Return faces under their people's masks.

        Raises:
            DataError: the file of masks was damaged or replaced meanwhile.
            StoreError: a new mask cannot be written.
        """
        masks = {who: _on(self._mask(who, pixels, ctx), ctx) for who in dict.fromkeys(pixels.identities)}
        return of_each_identity(
            pixels, masks, lambda faces, mask: calls.apply(self.attack, faces, mask, ctx), ctx.device
        )

    def _mask(self, person: str, pixels: Pixels, ctx: Context) -> Mask:
        if person in self._people and person in self.file.masks:
            return self.file.masks[person]
        own = frozenset(
            name for name, who in zip(pixels.ids, pixels.identities, strict=True) if who == person
        )
        learnt = calls.learn(self.attack, pixels.only(own).faces(ctx.device), ctx)
        if person not in self._people:
            return learnt
        self.file, self.learnt = self.file.with_mask(person, learnt), self.learnt + 1
        return self.file.masks[person]


def _on(mask: Mask, ctx: Context) -> Mask:
    """Return a mask on the device that the context computes on."""
    return {name: value.to(ctx.device) for name, value in mask.items()}


def taking_off(attack: PersonMask, file: MaskFile) -> Callable[[Pixels, Context], Pixels]:
    """Return what takes masks off faces; one whose person has none stays as it is."""

    def erase(pixels: Pixels, ctx: Context) -> Pixels:
        there = frozenset(
            name for name, who in zip(pixels.ids, pixels.identities, strict=True) if who in file.masks
        )
        if not there:
            return pixels
        masks = {who: _on(mask, ctx) for who, mask in file.masks.items() if who in pixels.identities}
        bare = of_each_identity(
            pixels.only(there),
            masks,
            lambda faces, mask: calls.take_off(attack, faces, mask, ctx),
            ctx.device,
        )
        return overlay_pixels(pixels, bare, frozenset(pixels.ids))

    return erase
