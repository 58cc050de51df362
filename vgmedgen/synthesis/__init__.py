"""On-site synthesis from an installed release."""
