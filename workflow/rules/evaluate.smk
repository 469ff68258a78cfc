rule tables:
    input:
        begin,
        samples=case_files("samples", ".h5", study.cases()),
    output:
        expand("results/{{study}}/tables/{name}", name=TABLES),
    log:
        "results/{study}/logs/tables.log",
    benchmark:
        "results/{study}/benchmarks/tables.tsv"
    conda:
        "../environment.yml"
    threads: study.threads
    resources:
        mem_mb=memory("tables"),
        runtime=duration("tables"),
    params:
        settings=settings("tables"),
        code=code("tables"),
    message:
        "{wildcards.study}: tables"
    shell:
        "logged {log} ddis tables --config results/{wildcards.study}/config.yaml"


rule figures:
    input:
        begin,
        tables=expand("results/{{study}}/tables/{name}", name=TABLES),
        samples=case_files("samples", ".h5", study.cases()),
        histories=model_files("history.csv"),
        denoising=prior_files("denoising.csv"),
    output:
        expand("results/{{study}}/figures/{name}", name=figure_names(study)),
    log:
        "results/{study}/logs/figures.log",
    benchmark:
        "results/{study}/benchmarks/figures.tsv"
    conda:
        "../environment.yml"
    threads: study.threads
    resources:
        mem_mb=memory("figures"),
        runtime=duration("figures"),
    params:
        settings=settings("figures"),
        code=code("figures"),
    message:
        "{wildcards.study}: figures"
    shell:
        "logged {log} ddis figures --config results/{wildcards.study}/config.yaml"


rule tuning_figures:
    input:
        begin,
        curves=case_files("tuning", ".csv", TUNED),
    output:
        expand("results/{{study}}/figures/{name}", name=tuning_figures()),
    log:
        "results/{study}/logs/tuning.log",
    benchmark:
        "results/{study}/benchmarks/tuning.tsv"
    conda:
        "../environment.yml"
    threads: study.threads
    resources:
        mem_mb=memory("tuning"),
        runtime=duration("tuning"),
    params:
        settings=settings("tuning"),
        runs=[study.run_for(case).model_dump(mode="json") for case in TUNED],
        code=code("tuning"),
    message:
        "{wildcards.study}: figures of the tuning"
    shell:
        "logged {log} ddis tuning --config results/{wildcards.study}/config.yaml"
