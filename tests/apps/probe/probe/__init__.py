"""What an app can and cannot do at a site."""
