"""The auditor: attacks a site's own models and says what they prove; it sends nothing."""
