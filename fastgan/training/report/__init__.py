"""report.html: verdicts, curves and samples of a run in one self-contained file."""

from fastgan.training.report.page import write_report as write_report
from fastgan.training.report.pictures import Section as Section
