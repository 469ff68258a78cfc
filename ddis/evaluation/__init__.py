"""Evaluation: arrays and data frames in; figures of merit, tables, pictures and a report out. No files are touched here."""
