"""CloakBench's harness: it crosses attacks × defences × backbones and measures what protects.

From Python: `bench.api`. Read it in the order the data flows, each room above those it imports: `contracts` →
`plugins`, `faces`, `data`, `stats` → `quality`, `datasets` → `run` → `protocols`, `analysis` → `leaderboard` →
`figures`, `integrity`, `assets`, `authoring` → `report`, `publish`, `ablation` → `cli` → `photo_tools`. The harness
knows no method by name; methods live in `attacks`, `defenses` and `fr_models`.
"""

__version__ = "0.1.0"
