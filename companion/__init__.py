"""Run the notebooks, keep their records, judge the claims, build the book."""
