rule report:
    input:
        reads("report"),
    output:
        "results/{study}/report.html",
    log:
        "results/{study}/logs/report.log",
    benchmark:
        "results/{study}/benchmarks/report.tsv"
    threads: study.threads
    resources:
        mem_mb=memory("report"),
        runtime=duration("report"),
    message:
        "{wildcards.study}: report"
    shell:
        "logged {log} ddis report --config results/{wildcards.study}/config.yaml"


rule paper_page:
    input:
        reads("paper"),
    output:
        outputs(Step("paper")),
    log:
        "results/{study}/logs/paper.log",
    benchmark:
        "results/{study}/benchmarks/paper.tsv"
    threads: study.threads
    resources:
        mem_mb=memory("paper"),
        runtime=duration("paper"),
    message:
        "{wildcards.study}: the paper's tables and figures"
    shell:
        "logged {log} ddis paper --config results/{wildcards.study}/config.yaml"


rule guidance:
    input:
        reads("guidance"),
    output:
        [
            f"results/{{study}}/guidance/{{problem}}/{name}"
            for name in ("gradients.csv", "README.md", "attenuation.png")
        ],
    log:
        "results/{study}/logs/guidance/{problem}.log",
    benchmark:
        "results/{study}/benchmarks/guidance/{problem}.tsv"
    threads: study.threads
    resources:
        mem_mb=memory("guidance"),
        runtime=duration("guidance"),
        gpu=GPU,
        local_gpu=LOCAL_GPU,
    message:
        "{wildcards.study}: guidance by share of the pairs, {wildcards.problem}"
    shell:
        "logged {log} ddis guidance --config results/{wildcards.study}/config.yaml"
        " --problem {wildcards.problem}"
