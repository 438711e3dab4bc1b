"""`companion serve`: the built book, each page of which can be rerun from the page."""
