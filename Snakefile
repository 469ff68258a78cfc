# Turns a configuration into data, models, samples, tables, figures and a report: snakemake --cores all [--configfile FILE]
from ddis.tracking.beside import Exporter
from snakemake.utils import min_version

min_version("9.10")


include: "workflow/rules/common.smk"
include: "workflow/rules/restart.smk"


wildcard_constraints:
    study=one_of([study.study]),
    problem=one_of(study.problems),
    observation=one_of(study.observations),
    run=one_of(study.runs),
    percent=PERCENT,
    shard=r"\d+",
    split="train|validation|test",
    model=rf"[^/]+-{PERCENT}",


# On a cluster beside Snakemake: to submit them takes longer than they do.
localrules:
    all,
    tune,
    check,
    pairs,
    tuning_figures,
    report,
    paper_page,


exporter = Exporter(study.study)


# config.yaml holds the whole configuration, and no job reads all of it: it is no file of a rule.
onstart:
    cancel_left_jobs()
    shell(
        "mkdir -p {study.folder}/logs;"
        " logged {study.folder}/logs/study.log ddis study --settings {SETTINGS:q}"
    )
    exporter.start()


onsuccess:
    exporter.finish(logger.warning)


onerror:
    exporter.finish(logger.warning)


# Every file of the study: one that was removed, data or weights too, is made again though all that was made from it is there.
rule all:
    input:
        [outputs_of(study, step) for step in steps(study) if step.stage != "study"],


rule tune:
    input:
        [outputs_of(study, step) for step in tuning_steps(study)],


rule paper:
    input:
        [outputs_of(study, step) for step in paper_steps(study)],


rule check:
    input:
        [outputs_of(study, step) for step in check_steps(study)],


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/sample.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
