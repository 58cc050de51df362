"""The verbs of `vgmedgen-client ledger`."""
