"""The report made of sections: a page that needs nothing else, figures, curves and numbers for publication."""
