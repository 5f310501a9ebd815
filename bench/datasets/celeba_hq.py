"""CelebA-HQ: 30,000 photos of CelebA at 1024×1024, identities by CelebA's identities; the user brings it.

Karras et al., Progressive Growing of GANs, ICLR 2018; Lee et al., MaskGAN, CVPR 2020 (CelebAMask-HQ, which hands the
photos out). Layout as in switchablenorms/CelebAMask-HQ: folder CelebA-HQ-img with 0.jpg … 29999.jpg and
CelebA-HQ-to-CelebA-mapping.txt; the identities are in CelebA's own list. Untested on the real files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import Field

from bench.data.files import data_folder
from bench.datasets._published import (
    ALIGNED,
    PhotosAre,
    PublishedDataset,
    PublishedIdentity,
    PublishedParams,
    broken,
    detected,
    existing,
    rows_of,
    whole_number,
)
from bench.datasets.celeba import FOLDERS, IDENTITIES, identities_in
from bench.faces.alignment import Points

MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
PHOTOS = "CelebA-HQ-img"


class CelebAHQ(PublishedDataset):
    """Photos of celebrities at 1024×1024.

    No landmarks are published for these photos, so the detector runs on each. Most identities have a few photos only.
    The dataset is for non-commercial research only, and the people in it were not asked.
    """

    name = "celeba-hq"
    paper = "Karras et al., Progressive Growing of GANs, ICLR 2018; Lee et al., MaskGAN, CVPR 2020"
    note = "CelebA-HQ: non-commercial research only; photos from the web, the people were not asked"

    class Params(PublishedParams):
        """Parameters of CelebA-HQ."""

        celeba: str = Field(
            "",
            description=f"folder with CelebA's {IDENTITIES}; celeba inside the data folder when empty",
            json_schema_extra={"path": True},
        )
        landmarks: PhotosAre = Field(
            "detect", description="detect: the detector looks for the face; aligned: photos are 112×112 crops"
        )

    params: Params

    def _find(self) -> Iterator[PublishedIdentity]:
        numbers = self._identity_of
        photos: dict[int, list[str]] = {}
        seen: set[str] = set()
        file = existing(self.root, MAPPING, (), self._fix)
        for line, (index, _original, celeba_name) in rows_of(file, 3, header=1):
            if celeba_name not in numbers:
                raise broken(file, line, f"'{celeba_name}' is not in CelebA's {IDENTITIES}")
            photo = f"{whole_number(index, file, line)}.jpg"
            for name in (photo, celeba_name):
                if name in seen:
                    raise broken(file, line, f"'{name}' is listed twice")
                seen.add(name)
            photos.setdefault(numbers[celeba_name], []).append(photo)
        for number, names in sorted(photos.items()):
            yield PublishedIdentity(str(number), tuple(sorted(names, key=lambda name: int(name[:-4]))))

    @property
    def _identity_of(self) -> Mapping[str, int]:
        """CelebA's photo → its number of the identity."""
        given = self.params.celeba
        folder = Path(given).expanduser() if given else data_folder() / "celeba"
        fix = "Get it with CelebA (`bench fetch celeba` says where), or say celeba=FOLDER."
        file = existing(folder, IDENTITIES, FOLDERS, fix)
        return {photo: number for _, photo, number in identities_in(file)}

    def _file(self, identity: PublishedIdentity, photo: str) -> Path:
        del identity
        return self.root / PHOTOS / photo

    @property
    def _points_version(self) -> str:
        return ALIGNED if self.params.landmarks == "aligned" else detected()

    def _points_of(self, identity: PublishedIdentity, photo: str) -> Points | None:
        del identity, photo
        return None
