"""The documentation's generator; ``python -m docs.generate`` writes the parts that are made from the code."""
