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
    model=f"(joint|joint-white|operator)-{PERCENT}",


localrules:
    all,
    tune,


exporter = Exporter(study.study)


# config.yaml is written before the first job, not by a rule: with an input that is to be made again, Snakemake would not look
# at a job's own parameters, and would miss what a new configuration changes.
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
        begin,
        [
            str(path)
            for step in steps(study)
            if step.stage != "study"
            for path in outputs_of(study, step)
        ],


rule tune:
    input:
        begin,
        case_files("tuning", ".csv", TUNED),
        expand(f"{study.folder}/figures/{{name}}", name=tuning_figures()),


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/sample.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
