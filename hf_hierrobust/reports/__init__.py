"""From records to tables, figures and text."""

from .tables import attack_label, records_table

__all__ = ["attack_label", "records_table"]
