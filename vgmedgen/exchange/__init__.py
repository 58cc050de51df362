"""What may cross a site's wall, how it is packed, and how updates are merged."""
