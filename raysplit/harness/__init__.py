"""lm-evaluation-harness through the split: any of its tasks over a phone, a link and an edge.

`raysplit lm-eval` runs it (`command.py`); for lm-eval itself the model is called `raysplit`
(`lm.py`, by the entry point `lm_eval.models`). Needs the extra `lm-eval`.
"""
