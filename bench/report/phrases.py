"""Every fixed text of a report, in one place: headlines, labels, notes and the guide to reading.

A template is filled with names and numbers and is never bent to them: a list follows a colon, a number its label.
"""

from collections.abc import Mapping

from bench.leaderboard.adaptation import COLUMNS as ADAPTATION
from bench.leaderboard.adaptation import WORDS

ALL_FAILED = "No result: every cell failed. First reason: {reason}"
NO_ATTACK = (
    "No attack was run. Error rate without any cloak, over the rows of the leaderboard: {low} to {high}."
)
NO_RATE = "No attack has a rate: cells failed, or have no identities in common."
WORST = "Worst case of `{defense}`: {value}; {against}; {knows}."
KNOWS: Mapping[str, str] = {
    "exact": "an attack was made against this defence",
    "partial": "no worst case: attacks were made against a part of it alone, or a whole that shares one",
    "none": "no worst case: no attack was made against this defence",
}
"""What a worst case is worth, by the column `worst_knows`."""

DEFENDED = (
    "Lowest ASR with a defence, {where}: `{defense}`, {value}; without a defence {undefended}; {verdict} "
    "(p after Holm: {p})."
)
ATTACKED = "Highest ASR without a defence: `{attack}`, {value}; error rate without any cloak {baseline}."
ERASED = (
    "`{attack}`: which of the pairs that it protects are undone with the right key, a wrong one, none, and by "
    "defences, is in the table of key results. No test compares erasers."
)
"""The first sentence of a report, one for each kind of run."""

MATRIX_CAPTION = "ASR in per cent, attacks × defences ({where}; {trackers}; {identities})."
MATRIX = (
    "ASR, the attack success rate, is the share of a protected identity's probes that the tracker does not recognise: "
    "high (dark) where the cloak protects, low where the defence gives the faces back. The first row is the error rate "
    "without any cloak, the first column what no defence leaves. NA: a cell failed or has no rate."
)
"""Caption of the attack × defence matrix, and how to read it."""

KEY_RESULTS = (
    "Key results ({where}). Rates are means over identities with 95 % intervals; ASR: attack success rate, high "
    "where the cloak works."
)
P = (
    "two-sided sign-flip test over identities, after Holm over the pairs of the comparison or, against no cloak, over "
    "the rows of the leaderboard; of normal accuracy the one-sided non-inferiority test, not corrected"
)
TRAINED: Mapping[tuple[str, str | bool, str], str] = {
    ("attack_seen_by_defense", "seen", "attack"): "trained on {}",
    ("attack_seen_by_defense", "seen-with-other-parameters", "attack"): "trained on other parameters of {}",
    ("extractors_are_surrogates", True, "attack"): "extractors are surrogates of {}",
    ("extractor_is_tracker", True, "backbone"): "extractors include a tracker's backbone ({})",
    **{(column, True, "attack"): f"{WORDS[kind]}: {{}}" for kind, column in ADAPTATION.items()},
}
"""Column of the leaderboard, its value and the column that names whom it concerns → what is said of a defence."""
UNTRAINED = "none of the attacks, their surrogates or the trackers' backbones"

NO_LEAK = "none found"
NO_LEAK_IN_PART = "none found in what could be looked up"
LEAKS = "{leaks}, of these not marked in the rows: {unmarked}"
UNAUDITED = "not audited"

LEADERBOARD = "One row a cell{condition}: {rows}. How to read them is explained below."

SIGNIFICANCE = (
    "The identities are the sample. Each identity's rate is averaged over trackers first; methods are then compared "
    "identity by identity by a sign-flip test, with Holm's correction over the pairs of one comparison, after "
    "Friedman's test over all methods. Methods that share a letter are not significantly different, which does not "
    "mean that they are equal: the minimum detectable difference is the smallest that would have been found in 80 of "
    "100 such runs."
)
PAIRS_LEFT_OUT = (
    "The run compares {pairs} pairs of methods, more than a page can hold: their tests are in the tables that "
    "`bench table significance RUN` writes. Here are the rankings that follow from them."
)
GROUPS = (
    "Groups are what the file given with `--groups` says, and nothing else: nobody is put into one by a face. Each is "
    "compared with all the others; `bench table groups RUN --groups FILE` has every rate with its interval and test."
)

GROUPS_CAPTION = (
    "ASR in per cent of each group (identities it has in brackets), {where}. The first row is the error rate without "
    "any cloak."
)

NO_GROUP_DIFFERS = "No difference between groups is shown, and none could be tested."

NOTHING_TO_COMPARE = "The run has no two methods to compare under the same conditions."

CROWDED = (
    "{attacks} against {defences} are more than one figure can show: the figures below are of `{attack}`, the attack "
    "with the highest ASR without a defence. `bench plot RUN KIND --attack METHOD` draws them of another; the matrix "
    "of the summary has the rates of all."
)
"""Before the figures of a run of many cells."""

NO_FAILURE = "No cell failed."
NO_WARNING = "No row carries a warning. What the audit found is listed below."
WARNINGS = "A warning is a reason to look, not a verdict: the row keeps its numbers."
NOT_AUDITED = "The run could not be audited: {reason}"
AUDITED = (
    "Looked up again from the run's folder and the methods installed where this report was made. A leak that is "
    "marked is stated in its rows, and the number is to be read with it. Near-duplicate photos are not looked for "
    "here; `bench audit RUN` does that."
)
NOT_CHECKED = "What could not be looked up; whether it leaks is unknown."

AGAIN = "From the run's folder, here called RUN, alone; the second command checks what is in it:"
FROM_NOTHING = "From nothing. A path that begins with … was shortened; give your own:"
THIS_REPORT = "This report:"

READING = (
    "Worst case: each identity's highest ASR over all attacks, then the mean over identities. It is one only where an "
    "attack was made against the defence itself; else whoever knows the defence may do better.",
    "Attack success rate (ASR): share of a protected identity's probes that are not recognised as theirs, mean over "
    "identities. High where the cloak works.",
    "Baseline error: the ASR without attack and defence, the error rate without any cloak.{baseline}",
    "Normal accuracy: share of an unprotected identity's probes that are recognised. It falls where a defence costs "
    "the tracker something.",
    "Recovery: how much of the ASR above the baseline error a defence takes back; 100 % brings the ASR down to the "
    "baseline error. Not clipped, and NA where the attack adds too little to the baseline error.",
    "Rank and letters: a rank is a range, from 1 + the number of methods significantly better to the number of "
    "methods - those significantly worse. Methods that share a letter are not significantly different.",
    "Intervals are 95 % over identities. NA is never a zero; its reason stands beside it.",
    "A mean over attacks takes in all of them, whatever they aim at; their goals are under Threat models.",
    "Threat model: white-box means that the attack knew the tracker's backbone, black-box that it did not. The two "
    "are never averaged. seen means that the defence was trained on this attack.",
)
"""How to read the leaderboard, one item a term."""
BASELINE_SPREAD = " Here: {low} to {high}."
