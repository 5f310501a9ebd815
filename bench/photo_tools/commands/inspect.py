"""Compare photos before and after a change: what is visible, and what recognisers answer.

`bench inspect`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli.options import device_option, json_option, lpips_trunk_option, threads_option
from bench.cli.output import counting, print_json
from bench.photo_tools.commands.changing import name_all, named_reasons, on_one_line

if TYPE_CHECKING:
    from bench.photo_tools.inspection import Comparison, Inspection, Movement, Verdict, Visibility

_EXAMPLES = """\b
Examples:
  bench inspect me.jpg CLOAKED/me.jpg
  bench inspect PHOTOS CLOAKED
  bench inspect PHOTOS PURIFIED --backbone mobileface-v2 --json
"""


@click.command(epilog=_EXAMPLES)
@click.argument("before", metavar="A", type=click.Path(path_type=Path))
@click.argument("after", metavar="B", type=click.Path(path_type=Path))
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    metavar="NAME",
    help="Recogniser to ask. May be repeated. [default: all whose weights are here]",
)
@lpips_trunk_option
@device_option
@threads_option
@json_option
def inspect(before: Path, after: Path, lpips_trunk: Path | None, as_json: bool, **asked: Any) -> None:
    """Measure what a change did: A and B are two photos, or two folders whose photos have the same names.

    For the whole photo and for each face: largest difference (L∞), PSNR, SSIM and LPIPS; and for each recogniser how
    far its embedding of the face moved, and whether it still takes both for one person's at its thresholds for false
    accepts of 1 % and 0.1 %. A is compared with itself here: a tracker compares with other photos of the person, which
    is easier to escape.

    Exit code 0: all was compared; 1: some photos could not be, they are named; 2: what was requested cannot be done.
    """
    from bench.photo_tools import inspection
    from bench.quality.lpips import load_lpips

    pairs = len(inspection.pairs_of(before, after)[0])
    with counting("photos", pairs) as advance:
        found = inspection.inspect(before, after, load_lpips(lpips_trunk), advance=advance, **asked)
    if as_json:
        value = {
            "comparisons": [comparison.model_dump(mode="json") for comparison in found.comparisons],
            "backbones": list(found.backbones),
            "notes": list(found.notes),
            "failed": named_reasons(found.refused),
        }
        print_json(value)
    else:
        _say(found)
        name_all("not compared", found.refused)
    if found.refused:
        click.get_current_context().exit(1)


def _say(found: "Inspection") -> None:
    for comparison in found.comparisons:
        _say_one(comparison)
    if len(found.comparisons) > 1:
        _say_sum(found)
    reasons = dict.fromkeys(reason for comparison in found.comparisons for reason in _reasons(comparison))
    for reason in reasons:
        click.echo(f"NA: {reason}")
    for note in found.notes:
        click.echo(f"Note: {note}", err=True)


def _say_one(comparison: "Comparison") -> None:
    one, other = comparison.before, comparison.after
    click.echo(f"{on_one_line(one.file)} → {on_one_line(other.file)}")
    click.echo(
        f"  {one.width}×{one.height} {one.format}, {one.bytes:,} bytes, {_faces(one.faces)} → "
        f"{other.width}×{other.height} {other.format}, {other.bytes:,} bytes, {_faces(other.faces)}"
    )
    click.echo(f"  {'whole photo':12}{_measures(comparison.whole)}")
    for number, face in enumerate(comparison.faces, 1):
        lost = "" if face.found_again else "; not found again there"
        click.echo(f"  {f'face {number}':12}{_measures(face.visibility)}{lost}")
        for movement in face.movements:
            click.echo(f"    {_movement(movement)}")


def _faces(count: int) -> str:
    return f"{count} face{'' if count == 1 else 's'}"


def _measures(seen: "Visibility") -> str:
    if seen.identical:
        return "identical" if seen.lpips is None else f"identical, LPIPS {seen.lpips:.4f}"
    shown = {"L∞": (seen.linf, ".0f", ""), "PSNR": (seen.psnr, ".1f", " dB"), "SSIM": (seen.ssim, ".4f", "")}
    shown["LPIPS"] = (seen.lpips, ".4f", "")
    return "  ".join(
        f"{name} NA" if value is None else f"{name} {value:{form}}{unit}"
        for name, (value, form, unit) in shown.items()
    )


def _movement(movement: "Movement") -> str:
    verdicts = "; ".join(_verdict(verdict) for verdict in movement.verdicts)
    return f"{movement.backbone:24} cosine {movement.cosine:6.3f}, moved {movement.distance:.3f}; {verdicts}"


def _verdict(verdict: "Verdict") -> str:
    said = {True: "same person", False: "another person", None: "NA"}[verdict.same_person]
    bound = "" if verdict.threshold is None else f" (from {verdict.threshold:.3f})"
    return f"FAR {100 * verdict.far:g} %: {said}{bound}"


def _say_sum(found: "Inspection") -> None:
    faces = [face for comparison in found.comparisons for face in comparison.faces]
    click.echo(f"{len(found.comparisons)} photos, {_faces(len(faces))}")
    for row, name in enumerate(found.backbones):
        moved = [face.movements[row] for face in faces]
        if not moved:
            continue
        mean = sum(movement.distance for movement in moved) / len(moved)
        parts = []
        for column, verdict in enumerate(moved[0].verdicts):
            answers = [movement.verdicts[column].same_person for movement in moved]
            other = "NA" if verdict.threshold is None else f"{answers.count(False)} of {len(answers)}"
            parts.append(f"FAR {100 * verdict.far:g} %: {other} another person")
        click.echo(f"  {name:24} moved {mean:.3f} on average; {'; '.join(parts)}")


def _reasons(comparison: "Comparison") -> list[str]:
    seen = [comparison.whole, *(face.visibility for face in comparison.faces)]
    found = [f"{name}: {reason}" for one in seen for name, reason in one.reasons.items()]
    return found + [
        verdict.reason
        for face in comparison.faces
        for movement in face.movements
        for verdict in movement.verdicts
        if verdict.reason
    ]
