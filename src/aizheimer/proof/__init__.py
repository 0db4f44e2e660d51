"""What is known of an edit, put together: may it be released, is it better than another, what was tried on it.

Reads the files that a run folder holds (``evaluation.json``, ``suite-*.json``, ``attack-*.json``) and draws nothing;
only `aizheimer.proof.trials` and `aizheimer.proof.verify` run a model.
"""
