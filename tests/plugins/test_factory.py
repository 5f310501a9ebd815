from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, model_validator

from bench.contracts import Defense, Method, MethodParams
from bench.errors import UsageError
from bench.plugins import factory, syntax
from bench.plugins import factory as methods
from bench.plugins.factory import as_text, build, canonical, describe_type
from bench.plugins.syntax import MethodText, parse, split


class Demo(Method):
    name = "demo"
    shorthand = "mode"

    class Params(MethodParams):
        mode: Literal["low", "high"] = Field("high", description="how much")
        steps: int = Field(40, ge=1, le=1000, description="how often", json_schema_extra={"unit": "steps"})
        rate: float = Field(0.5, gt=0, lt=1, description="how fast")
        bound: float | None = Field(
            None, ge=0, description="how far", json_schema_extra={"unit": "grey levels"}
        )
        strict: bool = Field(False, description="whether to insist")
        names: tuple[str, ...] = Field((), description="of whom")
        weights: str = Field("", description="a file", json_schema_extra={"path": True})

        @model_validator(mode="after")
        def _low_is_short(self):
            if self.mode == "low" and self.steps > 500:
                raise ValueError("mode=low takes at most 500 steps")
            return self


class Bare(Method):
    name = "bare"


HIGH = canonical(factory.attack("fawkes:mode=high"))


def demo(text):
    return build(Demo, parse(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("demo", MethodText("demo")),
        ("  demo ", MethodText("demo")),
        ("demo:", MethodText("demo")),
        ("demo:steps=3", MethodText("demo", {"steps": "3"})),
        ("demo:steps=3,mode=low", MethodText("demo", {"steps": "3", "mode": "low"})),
        ("demo: steps = 3 , mode = low", MethodText("demo", {"steps": "3", "mode": "low"})),
        ("demo:low,steps=3", MethodText("demo", {"steps": "3"}, "low")),
        ("demo:names=", MethodText("demo", {"names": ""})),
        ("demo:names=a=b", MethodText("demo", {"names": "a=b"})),
        ("folder:path=a/b:c", MethodText("folder", {"path": "a/b:c"})),
        ("./mine.py:MyCloak", MethodText("./mine.py:MyCloak")),
        ("./mine.py:MyCloak:steps=3", MethodText("./mine.py:MyCloak", {"steps": "3"})),
        ("/a b/mine.py:MyCloak:low", MethodText("/a b/mine.py:MyCloak", {}, "low")),
        ("nets/r50.onnx", MethodText("onnx", {"path": "nets/r50.onnx"})),
        (
            "r50.onnx:mean=127.5,scale=0.1",
            MethodText("onnx", {"path": "r50.onnx", "mean": "127.5", "scale": "0.1"}),
        ),
        ("onnx:path=nets/r50.onnx", MethodText("onnx", {"path": "nets/r50.onnx"})),
        ("onnx:path=r50.onnx,mean=1", MethodText("onnx", {"path": "r50.onnx", "mean": "1"})),
    ],
)
def test_a_text_is_split_into_name_and_parameters(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' names no method; write name or name:parameter=value"),
        (":steps=3", "names no method"),
        ("demo:steps=3,low", "'low' in 'demo:steps=3,low' is not of the form parameter=value"),
        ("demo:steps=3,steps=4", "parameter 'steps' is given twice in 'demo:steps=3,steps=4'"),
        ("demo:steps=3, steps=4", "parameter 'steps' is given twice"),
        ("r50.onnx:fast", "'fast' in 'r50.onnx:fast' is not of the form parameter=value"),
    ],
)
def test_a_malformed_text_is_refused_with_what_is_wrong(text, message):
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert message in str(caught.value)


def test_parameters_get_their_types():
    params = demo("demo:steps=3,rate=0.25,bound=8,strict=true,names=a|b").params
    assert params == Demo.Params(steps=3, rate=0.25, bound=8.0, strict=True, names=("a", "b"))
    assert demo("demo:bound=none").params.bound is None
    assert demo("demo:names=").params.names == ()


def test_a_bare_text_stands_for_the_shorthand():
    assert demo("demo:low").params.mode == "low"
    with pytest.raises(UsageError, match=r"'low' in 'bare:low' is not of the form parameter=value"):
        build(Bare, parse("bare:low"))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("demo:step=3", ["unknown parameter of demo 'step'", "Did you mean 'steps'", "`bench list demo`"]),
        ("demo:steps=0", ["parameter 'steps' of 'demo' cannot be '0'", "int, 1 … 1000, steps", "default 40"]),
        ("demo:steps=many", ["cannot be 'many'", "integer", "default 40"]),
        ("demo:rate=1", ["cannot be '1'", "less than 1", "float, > 0 … < 1", "default 0.5"]),
        ("demo:mode=mid", ["cannot be 'mid'", "'low' or 'high'", "default high"]),
        ("demo:strict=perhaps", ["cannot be 'perhaps'", "default false"]),
        ("demo:bound=-1", ["cannot be '-1'", "≥ 0, grey levels", "default none"]),
        ("demo:steps=0,rate=2", ["parameter 'steps'", "parameter 'rate'"]),
        ("demo:mode=low,steps=600", ["parameters of 'demo'", "mode=low takes at most 500 steps"]),
    ],
)
def test_an_error_names_the_value_the_valid_ones_and_the_mend(text, parts):
    with pytest.raises(UsageError) as caught:
        demo(text)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("demo", "demo"),
        ("demo:high", "demo"),
        ("demo:steps=40,rate=0.5,strict=false,bound=none,names=", "demo"),
        ("demo:steps=3,mode=low", "demo:mode=low,steps=3"),
        ("demo:bound=8.0", "demo:bound=8"),
        ("demo:bound=8", "demo:bound=8"),
        ("demo:strict=yes", "demo:strict=true"),
        ("demo:weights=/home/someone/secret/mine.safetensors", "demo:weights=mine.safetensors"),
    ],
)
def test_the_canonical_form_is_sorted_without_defaults_or_folders(text, expected):
    assert canonical(demo(text)) == expected


PLAIN = st.text(
    st.characters(codec="ascii", categories=("L", "N"), include_characters="._-/"), min_size=1, max_size=8
)

PARAMS = st.builds(
    Demo.Params,
    mode=st.sampled_from(["low", "high"]),
    steps=st.integers(1, 500),
    rate=st.floats(0, 1, exclude_min=True, exclude_max=True),
    bound=st.none() | st.floats(0, allow_infinity=False),
    strict=st.booleans(),
    names=st.lists(PLAIN, max_size=3).map(tuple),
)


@given(PARAMS)
def test_the_canonical_form_describes_the_method_again(params):
    text = canonical(Demo(params))
    again = demo(text)
    assert again.params == params
    assert canonical(again) == text


@given(PARAMS, st.randoms(use_true_random=False))
def test_the_order_of_parameters_does_not_matter(params, rng):
    name, _, rest = canonical(Demo(params)).partition(":")
    parts = rest.split(",") if rest else []
    rng.shuffle(parts)
    assert demo(f"{name}:{','.join(parts)}").params == params


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "none"),
        (True, "true"),
        (False, "false"),
        (8.0, "8"),
        (0.1, "0.1"),
        (1e300, "1e+300"),
        (3, "3"),
        ((1, "a"), "1|a"),
    ],
)
def test_values_are_written_one_way(value, expected):
    assert as_text(value) == expected


@given(st.floats(allow_nan=False))
def test_a_number_is_read_back_as_it_was_written(value):
    assert float(as_text(value)) == value


def test_types_are_described_with_range_and_unit():
    described = {key: describe_type(info) for key, info in Demo.Params.model_fields.items()}
    assert described["steps"] == "int, 1 … 1000, steps"
    assert described["rate"] == "float, > 0 … < 1"
    assert described["bound"] == "float or none, ≥ 0, grey levels"
    assert described["mode"] == "low|high"
    assert described["strict"] == "bool"
    assert described["names"] == "tuple[str, ...]"


def test_the_registry_builds_what_a_text_describes():
    attack = factory.create("attacks", "pgd:steps=3,eps=4")
    assert (attack.params.steps, attack.params.eps) == (3, 4)
    assert methods.canonical(attack) == "pgd:eps=4,steps=3"


# -- methods in values, and brackets -------------------------------------------------------------------------


class Wrapper(Defense):
    name = "wrapper"

    class Params(MethodParams):
        attack: str = Field("pgd:eps=15", description="an attack", json_schema_extra={"method": "attack"})
        defense: str = Field("puface", description="a defence", json_schema_extra={"method": "defense"})
        defenses: tuple[str, ...] = Field((), description="several", json_schema_extra={"method": "defenses"})
        attacks: str = Field("", description="several in one", json_schema_extra={"method": "attacks"})
        note: str = Field("", description="any text")


def wrapper(text):
    return build(Wrapper, parse(text))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a:x=[b:y=1,z=2],w=3", {"x": "b:y=1,z=2", "w": "3"}),
        ("a:x=[b:y=[c:z=1,v=2],w=3]", {"x": "b:y=[c:z=1,v=2],w=3"}),
        ("a:x=[[1]]", {"x": "[1]"}),
        ("a:x=[1][2]", {"x": "[1][2]"}),
        ("a:x=b[1,2]", {"x": "b[1,2]"}),
        ("a:x=[ 1 ]", {"x": " 1 "}),
        ("a:x=[]", {"x": ""}),
        ("a:x=b:y=1", {"x": "b:y=1"}),
        ("a:x=./mine.py:Mine", {"x": "./mine.py:Mine"}),
        ("a:x=[./mine.py:Mine:y=1,z=2]", {"x": "./mine.py:Mine:y=1,z=2"}),
        ("a:x=[b.onnx]", {"x": "b.onnx"}),
    ],
)
def test_brackets_keep_a_value_together(text, values):
    assert parse(text) == MethodText("a", values)


def test_a_bare_text_in_brackets_keeps_its_commas():
    assert parse("folder:[a,b=c],side=3") == MethodText("folder", {"side": "3"}, "a,b=c")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:x=[b:y=1", "the bracket '[' at character 5 of 'a:x=[b:y=1' is never closed"),
        ("a:x=[[b],y=1", "the bracket '[' at character 5 of 'a:x=[[b],y=1' is never closed"),
        ("a:x=b]", "the bracket ']' at character 6 of 'a:x=b]' was never opened"),
        ("a:x=]b[", "the bracket ']' at character 5 of 'a:x=]b[' was never opened"),
    ],
)
def test_a_bracket_without_its_partner_is_named(text, message):
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "separator", "pieces"),
    [
        ("a + b:x=[c + d] + e", "+", ["a", "b:x=[c + d]", "e"]),
        ("a:x=1e+3 + b", "+", ["a:x=1e+3", "b"]),
        ("a & b & ", "&", ["a", "b", ""]),
        ("a,[b,c],d", ",", ["a", "[b,c]", "d"]),
        ("", "+", [""]),
    ],
)
def test_a_separator_counts_outside_brackets_only(text, separator, pieces):
    assert split(text, separator) == pieces


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("wrapper:attack=[pgd:eps=15.0],defense=puface:features=auto", "wrapper"),
        ("wrapper:attack=[pgd:steps=3,eps=4]", "wrapper:attack=[pgd:eps=4,steps=3]"),
        ("wrapper:attack=pgd:eps=4", "wrapper:attack=pgd:eps=4"),
        ("wrapper:defense=[jpeg:quality=75 + median]", "wrapper:defense=[jpeg + median]"),
        ("wrapper:defenses=[jpeg:quality=75 & median]", "wrapper:defenses=[jpeg & median]"),
        ("wrapper:defenses=jpeg:quality=75", "wrapper:defenses=jpeg"),
        ("wrapper:attacks=[pgd & fawkes:mode=high]", f"wrapper:attacks=[pgd & {HIGH}]"),
        ("wrapper:note=[a,b]", "wrapper:note=[a,b]"),
        ("wrapper:note=a+b", "wrapper:note=[a+b]"),
        ("wrapper:note=[a]", "wrapper:note=a"),
    ],
)
def test_methods_in_values_are_brought_to_their_canonical_form(text, expected):
    made = wrapper(text)
    assert canonical(made) == expected
    assert wrapper(expected).params == made.params


def test_a_method_in_a_value_keeps_its_path_and_shows_the_file_only(tmp_path):
    weights = tmp_path / "mine.safetensors"
    made = wrapper(f"wrapper:defense=[puface:weights={weights},features=auto]")
    assert made.params.defense == f"puface:weights={weights}"
    assert canonical(made) == "wrapper:defense=puface:weights=mine.safetensors"
    assert str(weights) in syntax.words(f"wrapper:defense=[jpeg + puface:weights={weights},features=a|b]")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wrapper:attack=pdg", "unknown attack 'pdg'. Did you mean 'pgd'"),
        ("wrapper:attack=[pgd:steps=0]", "parameter 'steps' of 'pgd' cannot be '0'"),
        ("wrapper:defenses=[jpeg & medain]", "unknown defense 'medain'. Did you mean 'median'"),
    ],
)
def test_a_wrong_method_in_a_value_is_refused_as_anywhere(text, message):
    with pytest.raises(UsageError) as caught:
        wrapper(text)
    assert message in str(caught.value)


def balanced(text):
    try:
        split(text, ",")
    except UsageError:
        return False
    return True


SIMPLE = st.one_of(
    st.just("median"),
    st.integers(1, 100).map(lambda quality: f"jpeg:quality={quality}"),
    st.tuples(st.integers(1, 100), st.sampled_from(["yuv444", "yuv422"])).map(
        lambda pair: f"jpeg:quality={pair[0]},subsampling={pair[1]}"
    ),
)
DEFENSES = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(
        st.lists(SIMPLE, min_size=2, max_size=3).map(" + ".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda some: f"ensemble:defenses=[{' & '.join(some)}]"),
    ),
    max_leaves=5,
)


@settings(max_examples=30, deadline=None)
@given(DEFENSES)
def test_any_nesting_of_defences_is_described_again_by_its_canonical_form(text):
    made = factory.defense(text)
    again = factory.defense(canonical(made))
    assert type(again) is type(made)
    assert again.params == made.params
    assert canonical(again) == canonical(made)


@settings(max_examples=30, deadline=None)
@given(
    st.builds(
        dict,
        defense=DEFENSES,
        defenses=st.lists(DEFENSES, max_size=3).map(tuple),
        note=st.text(st.sampled_from("ab ,&+[]=:|"), max_size=8).filter(balanced),
    )
)
def test_a_method_of_methods_is_described_again_by_its_canonical_form(values):
    written = ",".join(
        f"{key}=[{' & '.join(value) if isinstance(value, tuple) else value}]" for key, value in values.items()
    )
    made = wrapper(f"wrapper:{written}")
    assert made.params.note == values["note"]
    assert len(made.params.defenses) == len(values["defenses"])
    text = canonical(made)
    assert wrapper(text).params == made.params
    assert parse(text).values.get("note", "") == values["note"]


# -- renamed parameters --------------------------------------------------------------------------------------


def test_a_former_name_of_a_parameter_is_taken_with_one_warning(caplog):
    former = factory.protocol("identification:strangers=40,fpir=0.5")
    assert [record.getMessage() for record in caplog.records] == [
        "parameter 'strangers' of identification is now called 'impostors'"
    ]
    assert former.params == factory.protocol("identification:impostors=40,fpir=0.5").params
    assert canonical(former) == "identification:fpir=0.5,impostors=40"
    assert len(caplog.records) == 1


def test_both_names_of_one_parameter_are_refused():
    for text in ("strangers=40,impostors=30", "impostors=30,strangers=40"):
        with pytest.raises(
            UsageError, match=r"'strangers' and 'impostors', which are one parameter\. Keep 'impostors'"
        ):
            factory.protocol(f"identification:{text}")
