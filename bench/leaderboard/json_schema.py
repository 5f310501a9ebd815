"""JSON Schemas (draft 2020-12) of what others read and write: a row of a leaderboard, the record of a submission."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from bench.leaderboard.columns import COLUMNS, FLAGS, TEXTS, WARNINGS, WHOLE
from bench.leaderboard.merge import CHECKS
from bench.leaderboard.plausible import FIELDS, RATES

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_TEXT: Mapping[str, Any] = {"type": "string"}
_OBJECT: Mapping[str, Any] = {"type": "object"}

_RECORD: Mapping[str, Mapping[str, Any]] = {
    "run": {"type": "string", "pattern": "^[0-9a-f]{12}$", "description": "digest of the specification"},
    "by": {**_TEXT, "description": "who submits it; empty for nobody"},
    "checks": {
        "type": "object",
        "description": "check that passed: what was found",
        "required": list(CHECKS),
        "additionalProperties": _TEXT,
    },
    "command": {**_TEXT, "description": "that makes the run"},
    "benchmark_version": {**_TEXT, "description": COLUMNS["benchmark_version"]},
    "requested": {**_OBJECT, "description": "the specification as it was given"},
    "spec": {**_OBJECT, "description": "the same in canonical form"},
    "fingerprint": {**_TEXT, "description": "digest of the photos and all that decides their crops"},
    "lpips_trunk": {**_TEXT, "description": "SHA-256 of LPIPS' trunk; empty where there is none"},
    "environment": {**_OBJECT, "description": "packages, processor, device, threads"},
    "methods": {
        "type": "array",
        "items": _OBJECT,
        "description": "code and files of every method, by digest",
    },
    "licences": {
        "type": "object",
        "additionalProperties": _TEXT,
        "description": "dataset or backbone: its licence as stated",
    },
    "folder_sha256": {**_SHA256, "description": "of the manifest of the run's folder"},
    "leaderboard_sha256": {**_SHA256, "description": "of the table beside the record"},
    "decisions": {
        "type": "object",
        "additionalProperties": _SHA256,
        "description": "file of decisions: its SHA-256",
    },
    "decisions_url": {**_TEXT, "description": "where decisions can be had; empty for nowhere"},
    "given_targets": {**_TEXT, "description": "digest of who imitates whom, where the protocol says so"},
    "against": {
        **_TEXT,
        "description": "the entry that a stronger attack is submitted against; empty for none",
    },
    "unreliable": {**_TEXT, "description": "why maintainers do not rely on the entry; empty where they do"},
    "footnote": {**_TEXT, "description": "what maintainers say of the entry besides"},
}

REQUIRED = ("checks", "leaderboard_sha256")
"""Fields of every record there is; those of other versions lack some of the others."""


def row_schema() -> dict[str, Any]:
    """Return the schema of a row as `bench leaderboard --json` prints it."""
    return {
        "$schema": _DRAFT,
        "title": "A row of a leaderboard",
        "type": "object",
        "properties": {name: {"description": said, **_type_of(name)} for name, said in COLUMNS.items()},
        "required": list(COLUMNS),
        "additionalProperties": False,
    }


def submission_schema() -> dict[str, Any]:
    """Return the schema of a submission's record, the JSON file beside its table."""
    assert _RECORD.keys() == FIELDS, "every field has its type"
    return {
        "$schema": _DRAFT,
        "title": "The record of a submission",
        "type": "object",
        "properties": deepcopy(dict(_RECORD)),
        "required": list(REQUIRED),
        "additionalProperties": False,
    }


def _type_of(column: str) -> dict[str, Any]:
    if column == WARNINGS:
        return {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"code": _TEXT, "sentence": _TEXT},
                "required": ["code", "sentence"],
            },
        }
    if column in TEXTS:
        return dict(_TEXT)
    if column in FLAGS:
        return {"type": "boolean"}
    if column == "seed":
        return {"type": "integer"}
    number: dict[str, Any] = {"type": ["integer" if column in WHOLE else "number", "null"]}
    shares = {f"{rate}{end}" for rate in RATES for end in ("", "_low", "_high", "_pooled")}
    return number | ({"minimum": 0, "maximum": 1} if column in shares else {})
