"""Datasets: identities, their photos, and aligned 112×112 crops of them.

Here: `bench.contracts.Dataset` plugins, alignment and detection. Not here: who is gallery and who is probe;
protocols decide that.
"""
