"""raysplit: how many layers of a language model should run on the phone, given the link?"""

__version__ = "0.1.0"
