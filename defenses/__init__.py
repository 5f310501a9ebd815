"""Defences of the tracker: one file a method, named as the method.

Here: `bench.contracts.Purifier` and `Hardening` plugins, their trainers and the weights the project ships.
Not here: rounding to 8 bits, caching and sharding; the harness does them.
"""
