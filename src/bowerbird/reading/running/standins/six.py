"""What ``torch._six`` held until PyTorch 1.13."""

import collections.abc as container_abcs
from math import inf, nan

string_classes = (str, bytes)
int_classes = int
__all__ = ["container_abcs", "inf", "int_classes", "nan", "string_classes"]
