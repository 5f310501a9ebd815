"""Who knew what in a cell: the columns that keep unlike rows from being compared.

Black-box and white-box cells are never averaged; a defence that trained on the attack it is measured
against says so.
"""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from bench import methods, registry
from bench.contracts import Backbone, BackboneCard, Binding, Defense, Frozen
from bench.resolve import Resolved
from bench.spec import Cell

Overlap = Literal["yes", "no", "unknown"]


class CellThreat(Frozen):
    """The threat model of one cell, as printed in its row."""

    surrogates: str = Field(description="backbones the attack used, joined by |; empty: none")
    extractors: str = Field(description="backbones the defence was trained with, joined by |; empty: none")
    access: str = Field(
        description="black-box, white-box (the tracker's backbone is a surrogate), or empty without surrogates"
    )
    related: bool = Field(description="a surrogate or extractor is of the tracker's family")
    extractors_are_surrogates: bool = Field(
        description="the attack's surrogates and the defence's extractors overlap"
    )
    attack_seen_by_defense: str = Field(
        description="seen, seen-with-other-parameters, unseen, or not-trained where the defence does not learn"
    )
    attack_adapts_to_defense: bool = Field(description="the attack was made against this defence")
    identity_overlap: Overlap = Field(
        description="whether an evaluated person's photos trained the tracker's backbone or the defence"
    )


def cell_threat(run: Resolved, cell: Cell) -> CellThreat:
    """Return the threat model of a cell."""
    attack, defense = run.attacks[cell.attack], run.defenses[cell.defense]
    surrogates = run.helpers(attack, cell.backbone)
    binding = run.binding(defense, cell.backbone)
    tracker = run.backbones[cell.backbone].card
    helper_cards = [_card(run, name) for name in {*surrogates, *binding.backbones}]
    return CellThreat(
        surrogates="|".join(surrogates),
        extractors="|".join(binding.backbones),
        access=_access(tracker, [_card(run, name) for name in surrogates]),
        related=any(_related(card, tracker) for card in helper_cards),
        extractors_are_surrogates=bool(set(surrogates) & set(binding.backbones)),
        attack_seen_by_defense=_seen(methods.canonical(attack), defense.trained_on(binding)),
        attack_adapts_to_defense=attack.threat.knows_defense and cell.defense != "none",
        identity_overlap=_overlap(run, tracker, defense, binding),
    )


def _card(run: Resolved, name: str) -> BackboneCard:
    backbone: Backbone = run.backbones.get(name) or registry.backbone(name)
    return backbone.card


def _access(tracker: BackboneCard, surrogates: Iterable[BackboneCard]) -> str:
    cards = list(surrogates)
    if not cards:
        return ""
    return "white-box" if any(_same(card, tracker) for card in cards) else "black-box"


def _same(card: BackboneCard, tracker: BackboneCard) -> bool:
    return card.name == tracker.name or (card.sha256 != "" and card.sha256 == tracker.sha256)


def _related(card: BackboneCard, tracker: BackboneCard) -> bool:
    return _same(card, tracker) or (card.family != "" and card.family == tracker.family)


def _seen(attack: str, trained_on: tuple[str, ...]) -> str:
    if attack == "none":
        return ""
    if not trained_on:
        return "not-trained"
    if attack in trained_on:
        return "seen"
    same_method = any(methods.parse(name).name == methods.parse(attack).name for name in trained_on)
    return "seen-with-other-parameters" if same_method else "unseen"


def _overlap(run: Resolved, tracker: BackboneCard, defense: Defense, binding: Binding) -> Overlap:
    name = run.spec.dataset
    answers = {_source_overlap(tracker.training_data, name)}
    trained = defense.training_identities(binding)
    if trained != "none":
        answers.add(_source_overlap(trained, name))
    if "yes" in answers:
        return "yes"
    return "unknown" if "unknown" in answers else "no"


def _source_overlap(source: str, dataset: str) -> Overlap:
    """Training identities of a dataset are disjoint from its evaluated ones; of another source nobody knows.

    Parameters may move people between the two, so a dataset with other parameters is another source.
    """
    if source == f"{dataset}/training":
        return "no"
    return "yes" if source == f"{dataset}/evaluation" else "unknown"
