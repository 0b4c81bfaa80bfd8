"""The study of many configurations: a study samples them, packs train them, successive halving
prunes them."""

from volano.study.study import Study

__all__ = ["Study"]
