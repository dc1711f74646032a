"""The model organism: tiny chat models that refuse, can be jailbroken, and whose harm is fictional and judged exactly.

``world`` is the source of truth (crafts, requests, answers), ``attacks`` wraps requests, ``judge`` reads answers,
``lessons`` makes training samples, ``training`` trains the pair, ``card`` measures it. The first four need no torch.
"""
