"""reports: reads run folders and writes statistics, tables, plots and pages; does not train."""
