"""The merged model that a run publishes: write it, verify it, install it."""
