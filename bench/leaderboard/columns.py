"""The columns of a leaderboard with their meaning."""

from collections.abc import Mapping

COLUMNS: Mapping[str, str] = {
    "rank_low": "rank of the defence against this attack, over all backbones of the run: 1 + number "
    "significantly better",
    "rank_high": "number of defences - number significantly worse",
    "tie_group": "letters: defences that share one are not significantly different",
    "ranking_reason": "why ranks and letters are empty, or why other rows of the comparison group are ranked apart",
    "ranked_over": "runs whose cells are ranked together, joined by |; empty where it is this run alone",
    "dataset": "dataset, canonical",
    "split": "whom: evaluation, or development, training identities on which choices are made; the two are never "
    "merged",
    "protocol": "protocol, canonical",
    "task": "dataset, protocol and split with the version of what they deal and decide: rows of two versions are "
    "never in one table; empty in tables from before tasks had one",
    "attack": "attack, canonical",
    "defense": "defence, canonical",
    "backbone": "the tracker's backbone",
    "head": "the tracker's head",
    "condition": "the protocol's condition; empty where it has only one",
    "seed": "seed of the methods' randomness",
    "requested": "True where the cell was requested, False for a reference cell the plan added",
    "status": "ok or failed",
    "reason": "why the cell failed",
    "n_identities": "identities evaluated",
    "n_probes": "probes of all identities, each counted once",
    "asr_worst": "worst case of the row's defence: each identity's highest ASR over the black-box (or white-box) "
    "attacks of the table on this tracker, head and condition, seeds averaged, then the mean over identities",
    "asr_worst_low": "lower end of its 95 % interval over identities",
    "asr_worst_high": "upper end",
    "asr_worst_reason": "why asr_worst or its interval is empty, or why the worst case may be higher still",
    "worst_over": "attacks it is over",
    "worst_of": "attacks it should be over: all that met any defence there; more than worst_over where cells failed or "
    "were not run",
    "worst_attack": "the attack among them whose own ASR is highest",
    "worst_attack_asr": "its ASR, seeds averaged: one attack for all identities",
    "worst_knows": "whether one of them was made against this defence: exact, partial (against a part of it, or a "
    "whole that shares one) or none; empty for defence none",
    "asr": "attack success rate: share of a protected identity's probes not recognised as theirs, mean over identities",
    "asr_low": "lower end of its 95 % interval over identities",
    "asr_high": "upper end",
    "asr_pooled": "the same over all probes",
    "asr_reason": "why asr or its interval is empty",
    "baseline_error": "ASR of attack none with defence none: error rate without any cloak (impersonation: of "
    "natural photos)",
    "defended_baseline_error": "ASR of attack none with this defence",
    "baseline_reason": "why one of the two baselines is empty",
    "normal_accuracy": "share of a normal identity's probes that are recognised, mean over identities",
    "normal_accuracy_low": "lower end of its 95 % interval over identities",
    "normal_accuracy_high": "upper end",
    "normal_accuracy_pooled": "the same over all probes",
    "normal_accuracy_reason": "why normal_accuracy or its interval is empty",
    "recovery": "(ASR undefended - ASR) / (ASR undefended - baseline error), not clipped",
    "recovery_low": "lower end of its 95 % bootstrap interval over identities",
    "recovery_high": "upper end",
    "recovery_reason": "why recovery is empty",
    "p": "p value of ASR against the same row under defence none (for defence none: attack none), sign-flip test, "
    "over all seeds",
    "p_holm": "p after Holm over all rows of this dataset, protocol and head",
    "p_holm_reason": "why p is empty",
    "effect_h": "Cohen's h of ASR against the same row under defence none (for defence none: attack none)",
    "effect_h_reason": "why effect_h is empty",
    "minimum_detectable_difference": "minimum detectable difference in ASR at 80 % power, at the "
    "level of Holm's first step",
    "threshold": "the tracker accepts a score of at least this; empty where it has no threshold",
    "threshold_for": "rate the threshold was calibrated for, e.g. FAR",
    "threshold_rate": "that rate as requested",
    "threshold_rate_measured": "that rate as measured: FAR on the impostors it was calibrated on, FPIR on others",
    "threshold_rate_low": "lower end of its 95 % interval over identities",
    "threshold_rate_high": "upper end",
    "threshold_pairs": "impostor comparisons (FAR) or searches (FPIR) it was calibrated on, none of an "
    "evaluated identity",
    "threshold_identities": "identities in them",
    "gallery_cloaked": "where a tracker's gallery grows: share of the photos under a protected identity's name in "
    "the end that are cloaks, mean over identities; empty elsewhere",
    "gallery_cloaked_low": "lower end of its 95 % interval",
    "gallery_cloaked_high": "upper end",
    "gallery_missed": "where faces are looked for in whole photos: share of a protected identity's gallery photos in "
    "which none is found, mean over identities; empty elsewhere",
    "gallery_missed_low": "lower end of its 95 % interval",
    "gallery_missed_high": "upper end",
    "probes_missed": "the same of an identity's probes, which then are not recognised",
    "probes_missed_low": "lower end of its 95 % interval",
    "probes_missed_high": "upper end",
    "condition_reason": "why the condition has no threshold or no decisions",
    "cloak_psnr": "PSNR of cloak against original, dB, mean over changed images",
    "cloak_ssim": "SSIM of cloak against original",
    "cloak_dssim": "(1 - SSIM) / 2",
    "cloak_lpips": "LPIPS (AlexNet) of cloak against original",
    "cloak_linf": "largest change of a pixel, grey levels of 255",
    "cloak_unchanged": "share of images the attack left as they were",
    "cloak_reason": "why the cloak's measures are empty",
    "purified_psnr": "PSNR of the purified image against the original (of cloaks; of photos for attack none)",
    "purified_ssim": "SSIM of the purified image against the original",
    "purified_dssim": "(1 - SSIM) / 2",
    "purified_lpips": "LPIPS of the purified image against the original",
    "purified_linf": "largest change of a pixel, grey levels of 255",
    "purified_unchanged": "share of images that came back as the original",
    "purified_reason": "why the purified image's measures are empty",
    "detector_tpr": "share of an identity's cloaked gallery photos that the defence's detector flags, mean over "
    "identities",
    "detector_tpr_low": "lower end of its 95 % interval over identities",
    "detector_tpr_high": "upper end",
    "detector_fpr": "the same share of their natural gallery photos",
    "detector_fpr_low": "lower end of its 95 % interval over identities",
    "detector_fpr_high": "upper end",
    "detector_reason": "why one of these is empty",
    "restored_psnr": "PSNR of what the protocol restored (erased) against the original",
    "restored_ssim": "SSIM of it",
    "restored_dssim": "(1 - SSIM) / 2",
    "restored_lpips": "LPIPS of it",
    "restored_linf": "largest change of a pixel, grey levels of 255",
    "restored_unchanged": "share of images that came back as the original",
    "restored_reason": "why the restored image's measures are empty",
    "restored_to_cloak_psnr": "PSNR of what the protocol restored against the cloak as posted, dB, mean over those "
    "that are not the cloak itself",
    "restored_to_cloak_unchanged": "share of images that came back as the cloak",
    "restored_to_cloak_reason": "why these two are empty",
    "lpips_reason": "why LPIPS is empty where other measures are there",
    "warnings": "warnings about the row's numbers, each as code: sentence; empty where there is none",
    "surrogates": "backbones the attack used",
    "extractors": "backbones the defence was trained with",
    "access": "black-box or white-box (a backbone that the tracker embeds with is a surrogate, or served to make one)",
    "extractor_is_tracker": "the tracker's backbone, by name or by its weights' SHA-256, trained the defence",
    "related": "a surrogate or extractor is of the tracker's family",
    "extractors_are_surrogates": "surrogates and extractors overlap",
    "attack_seen_by_defense": "seen, seen-with-other-parameters, unseen, not-trained",
    "attack_adapts_to_defense": "the attack is adapted to this very defence: exact",
    "attack_adapts_in_part": "the attack is adapted to a part of this defence, or to a whole that shares one, and not "
    "to this very defence: partial",
    "attack_knows": "what the attack has of that defence or part: weights (the very purifier, the very hardened "
    "tracker), recipe (how trackers are hardened, not the weights that come of it); empty: it adapts to nothing here",
    "identity_overlap": "an evaluated identity's photos trained the backbone, defence or attack: yes, no, unknown",
    "identity_overlap_detail": "how many identities, or why it is unknown",
    "impostor_overlap": "whether an evaluated identity is among the impostors of thresholds or the distractors; "
    "empty: there are none",
    "model_time": "later: the tracker's weights were published after every surrogate's; not-later; empty: not known",
    "model_time_reason": "why model_time is empty",
    "external": "somebody else made the cloaks: surrogates, budget and training are as declared",
    "dataset_note": "a caution about the dataset, about the development split, and about embeddings that are not of "
    "float32",
    "footnote": "how the entry stands in a table of submissions: the run whose attack lowered it, whom it was "
    "submitted against, why it is unreliable, what maintainers say besides",
    "benchmark_version": "rows of different versions are not compared",
    "run": "digest of the specification",
}
"""Every column with its meaning, in order."""

MEASURES = ("psnr", "ssim", "dssim", "lpips", "linf")

KEY = ("dataset", "protocol", "attack", "defense", "backbone", "head", "condition", "seed")
"""What names a row."""

WHOLE = (
    *("rank_low", "rank_high", "n_identities", "n_probes", "worst_over", "worst_of"),
    *("threshold_pairs", "threshold_identities"),
)

FLAGS = (
    "requested",
    "extractor_is_tracker",
    "related",
    "extractors_are_surrogates",
    "attack_adapts_to_defense",
    "attack_adapts_in_part",
    "external",
)

WARNINGS = "warnings"
"""The column that holds a `bench.analysis.warnings.RowWarnings` a row."""

FORMERLY: Mapping[str, str] = {"split": "evaluation", "task": "", "footnote": ""}
"""What a column says of tables that were written before it was there."""

TEXTS = frozenset(
    {
        *(name for name in COLUMNS if name.endswith("_reason")),
        *(name for name in KEY if name != "seed"),
        *(
            "tie_group",
            "worst_attack",
            "worst_knows",
            "ranked_over",
            "split",
            "task",
            "status",
            "reason",
            "threshold_for",
            "surrogates",
            "extractors",
            "access",
        ),
        *(
            "attack_seen_by_defense",
            "attack_knows",
            "identity_overlap",
            "identity_overlap_detail",
            "impostor_overlap",
        ),
        "model_time",
        *("dataset_note", "footnote", "benchmark_version", "run"),
    }
)
