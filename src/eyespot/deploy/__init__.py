"""Out of the house: pushing students to the Hugging Face hub."""

from eyespot.deploy.hub import push

__all__ = ["push"]
