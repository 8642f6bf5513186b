"""raysplit: how many layers of a language model should run on the phone, given the link?"""

__version__ = "0.2.0"
