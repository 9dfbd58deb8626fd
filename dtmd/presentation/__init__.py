"""How results look, in one place: numbers as text, the style of figures, the frame of HTML pages."""
