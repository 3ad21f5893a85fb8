"""From records to tables, figures and text."""
