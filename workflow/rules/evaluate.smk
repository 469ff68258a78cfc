rule tables:
    input:
        reads("tables"),
    output:
        outputs(Step("tables")),
    log:
        "results/{study}/logs/tables.log",
    benchmark:
        "results/{study}/benchmarks/tables.tsv"
    threads: study.threads
    resources:
        mem_mb=memory("tables"),
        runtime=duration("tables"),
    message:
        "{wildcards.study}: tables"
    shell:
        "logged {log} ddis tables --config results/{wildcards.study}/config.yaml"


rule figures:
    input:
        reads("figures"),
    output:
        outputs(Step("figures")),
    log:
        "results/{study}/logs/figures.log",
    benchmark:
        "results/{study}/benchmarks/figures.tsv"
    threads: study.threads
    resources:
        mem_mb=memory("figures"),
        runtime=duration("figures"),
    message:
        "{wildcards.study}: figures"
    shell:
        "logged {log} ddis figures --config results/{wildcards.study}/config.yaml"


rule tuning_figures:
    input:
        reads("tuning"),
    output:
        outputs(Step("tuning")),
    log:
        "results/{study}/logs/tuning.log",
    benchmark:
        "results/{study}/benchmarks/tuning.tsv"
    threads: study.threads
    resources:
        mem_mb=memory("tuning"),
        runtime=duration("tuning"),
    message:
        "{wildcards.study}: figures of the tuning"
    shell:
        "logged {log} ddis tuning --config results/{wildcards.study}/config.yaml"
