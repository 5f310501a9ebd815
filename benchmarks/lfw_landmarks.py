"""Pack LFW's landmarks for the package: keyed by each photo's digest, without a name.

    python -m benchmarks.lfw_landmarks lfw/landmarks.csv lfw/lfw-deepfunneled.tar

writes ``bench/datasets/lfw_landmarks.npz`` with its card beside it; the same input gives the same bytes.
"""

import argparse
import csv
import hashlib
import json
import tarfile
from pathlib import Path

import numpy as np

from bench.datasets._lfw_source import LANDMARKS, PREFIX

CARD = {
    "what": "five landmarks and the detector's score for each photo of LFW deep-funneled, keyed by the photo",
    "arrays": {
        "digests": f"N×{PREFIX} uint8: first {PREFIX} bytes of the photo's SHA-256, sorted; no name, no identity",
        "points": "10×N int32: x1, y1 … x5, y5 (left eye, right eye, nose, left and right mouth corner), "
        "thousandths of a pixel of the 250×250 photo",
        "scores": "N int32: the detector's score, hundred-thousandths",
    },
    "origin": "found by MTCNN (Zhang et al., 2016) with the weights of facenet-pytorch (MIT); a face in every photo",
    "licence": "Apache-2.0, like the project; the photos are not included",
    "command": "python -m benchmarks.lfw_landmarks lfw/landmarks.csv lfw/lfw-deepfunneled.tar",
}


def pack(landmarks: Path, archive: Path, out: Path = LANDMARKS) -> dict[str, object]:
    """Write the packed landmarks and their card; returns the card."""
    with landmarks.open(newline="") as file:
        rows = {row[0]: row[1:] for row in list(csv.reader(file))[1:]}
    faces = []
    with tarfile.open(archive, "r:") as tar:
        for member in tar:
            content = tar.extractfile(member)
            assert content is not None, "the archive holds photos only"
            *points, score, detected = rows[member.name]
            assert detected == "1", "every photo's face was found"
            digest = hashlib.sha256(content.read()).digest()[:PREFIX]
            faces.append((digest, [round(float(v) * 1000) for v in points], round(float(score) * 100_000)))
    faces.sort()
    digests, points_of, scores = zip(*faces, strict=True)
    assert len(set(digests)) == len(digests), "the prefixes tell all photos apart"
    np.savez_compressed(
        out,
        digests=np.frombuffer(b"".join(digests), np.uint8).reshape(-1, PREFIX),
        points=np.array(points_of, np.int32).T.copy(),
        scores=np.array(scores, np.int32),
    )
    content = out.read_bytes()
    card = {
        "file": out.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "photos": len(faces),
    }
    out.with_suffix(".json").write_text(
        json.dumps(card | CARD, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return card


def main() -> None:
    """Pack what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("landmarks", type=Path)
    parser.add_argument("archive", type=Path)
    arguments = parser.parse_args()
    print(json.dumps(pack(arguments.landmarks, arguments.archive), indent=1))


if __name__ == "__main__":
    main()
