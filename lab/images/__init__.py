"""The image store: recipes, their keys, and builds that happen once.

An image is built from a recipe folder, ``images/<name>/``, and stored under the hash of
everything that went in. Nothing in here knows what an image is for.
"""
