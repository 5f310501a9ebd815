"""CloakBench's harness: it crosses attacks × defences × backbones and measures what protects.

`bench.api` tells the whole benchmark on one page. A room of this package imports only the rooms below it, in the order
that docs/architecture.md draws and ``lint-imports`` checks. The harness knows no method by name; methods live in
`attacks`, `defenses` and `fr_models`.
"""

__version__ = "0.1.0"
