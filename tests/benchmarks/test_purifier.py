"""What a purifier costs: its work counted, its table joined, and its weights in 8 bits near those in float32."""

import onnx
import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.contracts import Context, Faces
from bench.figures.files import save
from benchmarks import purifier as costs
from benchmarks.puface_int8 import PuFaceInt8, as_onnx, quantised, run
from benchmarks.purifier import (
    ABLATIONS,
    SHIPPED,
    Row,
    Shape,
    bare,
    drawing,
    eight_bits,
    label,
    pictures,
    psnr,
    purified,
    shapes,
    with_ablation,
    write,
)
from defenses.puface.network import purify
from defenses.puface.purifier import SHELF

SMALL = Shape(8, 4, 2)


def row(factor: str, shape: Shape = SMALL, **given: float) -> Row:
    known = {"ratio": 1.0, "ratio_low": 0.9, "ratio_high": 1.1} | given
    return Row(
        factor,
        shape.width,
        shape.depth,
        shape.stride,
        "float32",
        1,
        1,
        9.0,
        **known,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("shape", [SMALL, Shape(8, 2, 1), Shape(12, 2, 4)])
def test_multiply_adds_are_those_torch_counts(shape):
    images = torch.rand(1, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        shape.network()(images)
    assert counter.get_total_flops() == 2 * shape.multiply_adds(32)


def test_bare_is_every_convolution_and_nothing_else():
    images = torch.rand(5, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        bare(SMALL.network(), images, 2)()
    assert counter.get_total_flops() == 5 * 2 * SMALL.multiply_adds(32)
    assert {str(name) for name in counter.get_flop_counts()["Global"]} == {"aten.convolution"}


def test_the_shapes_are_those_of_the_ablations():
    found = list(shapes())
    assert found[0] == ("default", Shape(48, 10, 2))
    assert {shape.width for _, shape in found} == {16, 32, 48, 64}
    assert {shape.depth for _, shape in found} == {4, 10, 16}
    assert {shape.stride for _, shape in found} == {1, 2, 4}
    assert len(found) == 8


def test_a_shape_has_the_rates_of_its_level():
    table = pd.read_csv(ABLATIONS, dtype={"level": str})
    narrow = with_ablation(row("width", Shape(16, 10, 2)), table)
    default = with_ablation(row("default", Shape()), table)
    assert narrow.identities == default.identities == 40
    assert narrow.asr_low < narrow.asr < narrow.asr_high
    assert default.asr < narrow.asr
    assert default.normal_accuracy > 0.9
    assert (
        table.loc[(table["factor"] == "width") & (table["level"] == "16"), "asr"] == narrow.asr
    ).sum() == 1


def test_the_graph_computes_the_network():
    network, images = SMALL.network(), torch.rand(11, 3, 32, 32)
    found = run(as_onnx(network).SerializeToString(), images)
    torch.testing.assert_close(found, purify(network, images), atol=1e-5, rtol=0)
    assert not torch.equal(found, images)


def test_eight_bits_are_near_and_do_not_depend_on_the_company():
    network, images = SMALL.network(), torch.rand(11, 3, 32, 32)
    model = quantised(network, torch.rand(16, 3, 32, 32))
    kinds = [node.op_type for node in onnx.load_from_string(model).graph.node]
    assert kinds.count("QuantizeLinear") >= SMALL.depth
    found = run(model, images)
    assert psnr(found, purify(network, images)) > 40
    assert not torch.equal(found, purify(network, images))
    assert torch.equal(run(model, images[7:9]), found[7:9])


def test_the_defence_learns_its_graph_on_training_faces():
    defense, faces = PuFaceInt8(), Faces(pictures(2), ("1", "2"), ("p", "q"))
    files = (SHELF.folder / SHIPPED,)
    state = defense.fit(faces, Context(files=files))
    found = defense.purify(faces, Context(files=files, state=state))
    assert found.shape == faces.images.shape
    assert psnr(found, purify(costs.shipped(), faces.images)) > 40


def test_psnr_is_of_stored_bytes():
    black = torch.zeros(2, 3, 4, 4)
    assert psnr(black, black + 10 / 255) == pytest.approx(28.13, abs=0.01)
    assert psnr(black, black + 0.4 / 255) > 100


def test_rates_of_eight_bits_are_those_of_the_run(tmp_path):
    rates = {f"{name}{end}": 0.5 for name in ("asr", "normal_accuracy") for end in ("", "_low", "_high")}
    cells = [
        {"attack": attack, "defense": defense, "backbone": "b", "n_identities": 12, **rates, "asr": asr}
        for attack, defense, asr in (
            ("none", "puface", 0.0),
            ("pgd", "none", 0.9),
            ("pgd", "puface", 0.1),
            ("pgd", "puface-int8", 0.2),
        )
    ]
    pd.DataFrame(cells).to_csv(tmp_path / "leaderboard.csv", index=False)
    default = row("default", Shape())
    exact, coarse = eight_bits(tmp_path, default, pictures(2), pictures(3)[1:], rounds=1)
    assert (exact.asr, coarse.asr) == (0.1, 0.2)
    assert (exact.arithmetic, coarse.arithmetic) == ("float32", "int8")
    assert exact.ratio == default.ratio
    assert coarse.psnr is not None
    assert coarse.psnr > 40
    assert label(coarse) == "int8, b"


def test_the_stage_does_more_than_the_purifier_and_the_purifier_runs():
    costs.stage(pictures(1))()
    purified(SMALL.network(), pictures(1))()


def test_the_table_and_the_figure(tmp_path):
    rates = {"asr": 0.1, "asr_low": 0.05, "asr_high": 0.2, "identities": 40}
    rows = [row("default", Shape(), **rates)]
    rows += [row(factor, **rates, ratio=0.5) for factor in ("width", "depth", "stride")]
    rows += [row("arithmetic", Shape(), **rates)]
    rows += [Row(**{**vars(rows[-1]), "arithmetic": "int8", "ratio": 0.55})]
    write(rows, tmp_path / "t.csv")
    assert list(pd.read_csv(tmp_path / "t.csv")["ratio"]) == [1, 0.5, 0.5, 0.5, 1, 0.55]
    shown = drawing(rows)
    assert "width 8: 0.50 ×, 10.0 %" in shown.alt
    save(shown, tmp_path / "f.svg")
    text = (tmp_path / "f.svg").read_text(encoding="utf-8")
    assert "processor time over the default network" in text
