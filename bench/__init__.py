"""CloakBench's harness: it crosses attacks × defences × backbones and measures what protects.

Read it in the order the data flows: `contracts` → `methods` and `registry` → `datasets` → `spec` and `plan`
→ `pipeline` over `store` → `protocols` → `decisions` and `measures` → `statistics` → `leaderboard`. The
harness knows no method by name; methods live in `attacks`, `defenses` and `fr_models`.
"""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # `from bench import run` without paying for torch at `bench --help`.
    if name in ("run", "Options"):
        from bench import runner

        return getattr(runner, name)
    raise AttributeError(f"module 'bench' has no attribute '{name}'")
