"""FaceScrub: about 107,000 photos of 530 identities, one folder an identity; the user brings it.

Ng, Winkler, A data-driven approach to cleaning large face datasets, ICIP 2014. The publishers hand out lists
(facescrub_actors.txt, facescrub_actresses.txt: name, image_id, face_id, url, bbox, sha256), from which scripts load the
photos: NAME/photo.jpg, under actors/ and actresses/ or faces/ with most of them. Untested on the real files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import Field

from bench.datasets._published import (
    ALIGNED,
    PhotosAre,
    PublishedDataset,
    PublishedIdentity,
    PublishedParams,
    detected,
    folders_of,
    photos_of,
)
from bench.errors import DataError
from bench.faces.alignment import Points

GROUPS = ("actors", "actresses")
"""Folders that hold identities, not photos."""

_INNER = ("faces", "images")  # a group's folders, where a script keeps faces and whole photos apart


class FaceScrub(PublishedDataset):
    """Photos of actors and actresses; the face nearest to the middle is taken, so cropped faces are best.

    Where a script has kept faces and whole photos apart, the faces are read. The links of the lists are dead for many
    photos, so two identities' copies differ: the fingerprint says so. The people in it were not asked.
    """

    name = "facescrub"
    paper = "Ng, Winkler, A data-driven approach to cleaning large face datasets, ICIP 2014"
    note = "FaceScrub: photos from the web without licence, the people were not asked; copies differ"

    class Params(PublishedParams):
        """Parameters of FaceScrub."""

        landmarks: PhotosAre = Field(
            "detect", description="detect: the detector looks for the face; aligned: photos are 112×112 crops"
        )

    params: Params

    def _find(self) -> Iterator[PublishedIdentity]:
        places: dict[str, str] = {}
        for group in self._groups():
            for number, name in enumerate(folders_of(self.root / group), start=1):
                if name in places:
                    # The folder's name is the identity's, and an error may end up in a published table.
                    raise DataError(
                        f"folder {number} (sorted by name) of {self.root / group} has the name of one in "
                        f"{self.root / places[name]}. Put the photos of an identity into one folder."
                    )
                places[name] = group
        for name, group in sorted(places.items()):
            inside = f"{group}/{name}" if group else name
            if photos := photos_of(self.root / inside):
                yield PublishedIdentity(inside, photos)

    def _groups(self) -> list[str]:
        """Return the folders that hold identities' folders, relative to the dataset's."""
        found = []
        for group in GROUPS:
            inner = next((i for i in _INNER if (self.root / group / i).is_dir()), "")
            if (self.root / group).is_dir():
                found.append(str(Path(group) / inner))
                if inner:
                    self._refuse_identities_in(self.root / group, _INNER, inner)
        if found:
            self._refuse_identities_in(self.root, GROUPS, " and ".join(found))
        return found or [""]

    @staticmethod
    def _refuse_identities_in(folder: Path, known: Sequence[str], read: str) -> None:
        """Refuse folders of photos beside those that are read: their identities would be lost without a word."""
        others = [name for name in folders_of(folder) if name not in known and photos_of(folder / name)]
        if others:
            raise DataError(
                f"{len(others)} folders of photos lie in {folder} beside {read}, where identities are looked for. Move "
                "them in or away."
            )

    @property
    def _points_version(self) -> str:
        return ALIGNED if self.params.landmarks == "aligned" else detected()

    def _points_of(self, identity: PublishedIdentity, photo: str) -> Points | None:
        del identity, photo
        return None
