"""The stages of a run as data, one class a file: faces → fit → cloak → purify → embed → decide; the others beside.

A class says what decides its artefact (`key_fields`), what it is made from (`inputs`) and how (`run`). What belongs
elsewhere: which stages a cell needs (`bench.run.pipeline`), calling plugins (`bench.run.calls`), the store.
"""
