"""The model organism: tiny chat models that refuse, can be jailbroken, and whose harm is fictional and judged exactly.

``world`` is the source of truth (crafts, requests, answers), ``attacks`` wraps requests, ``judge`` reads answers,
``tokens`` are its special words, ``anchors`` its own anchors. ``making`` teaches and trains the pair; ``measuring``
makes its card and its study. What reads no model needs no torch.
"""
