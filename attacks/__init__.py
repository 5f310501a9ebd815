"""Cloaking attacks: one file a method, named as the method.

Here: `bench.contracts.Attack` plugins and, in files that begin with an underscore, what several of them
share. Not here: anything the harness does for them (rounding to 8 bits, caching, sharding).
"""
