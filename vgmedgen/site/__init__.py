"""One hospital's own folder: what its site.yaml says, its data, and what is done in it."""
