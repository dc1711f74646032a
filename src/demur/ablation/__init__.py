"""Every detector under one protocol, for any model.

``splits`` says which prompt serves what, ``recording`` asks a model and keeps what detectors read of its answers
(``material``), ``rivals`` are the scores that compete (``paths`` those that follow a
path), ``protocol`` compares them, ``depth`` does so at every layer,
``thresholds`` and ``recovering`` measure the guard and what happens inside, ``report`` puts all of it together as JSON
would hold it, ``tables`` and ``pictures`` show it.
"""
