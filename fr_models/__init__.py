"""Face-recognition backbones: architectures, the ONNX reader, and one small card file per set of weights.

Here: `bench.contracts.Backbone` plugins and their trainer. Not here: tracker heads and thresholds in use,
which belong to the protocols.
"""
