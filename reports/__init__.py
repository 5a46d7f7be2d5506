"""reports: run folders in, statistics, tables, plots and pages out; nothing here trains."""
