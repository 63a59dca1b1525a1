"""Pages that people look at: one run, or several side by side. Self-contained files; nothing is asked of a network."""

from dream3d.report.comparison import write_comparison as write_comparison
from dream3d.report.pages import REPORT as REPORT
from dream3d.report.pages import write_report as write_report
