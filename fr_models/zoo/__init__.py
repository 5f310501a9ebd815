"""The zoo: networks that anyone gets by name as the ONNX file their publisher hands out, pinned by its stated SHA-256.

A file a family; a class a network, with its card. Here: cards and addresses. Not here: networks that this project
converts, and how an ONNX graph is read. ArcFace's two are the packs `fr_models.insightface_buffalo_l` and
`fr_models.insightface_buffalo_s`, which are the same files.
"""
