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
