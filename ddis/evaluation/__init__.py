"""Evaluation: arrays and rows of tables in; figures of merit, tables, pictures and a report out. No files are touched here."""
