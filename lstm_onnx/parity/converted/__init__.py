"""Verifies files with float16 or int8 weights: are they exactly what the conversion gives, and what is their drift?"""
