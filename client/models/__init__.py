"""The releases that a site holds, and the commands of whoever decides on them."""
