"""Differential privacy at a site: the plan, the engine that keeps it, and the ledger.

`README.md` beside this file says what is promised, to whom, and what is not.
"""
