rule report:
    input:
        reads("report"),
    output:
        "results/{study}/report.html",
    log:
        "results/{study}/logs/report.log",
    benchmark:
        "results/{study}/benchmarks/report.tsv"
    conda:
        "../environment.yml"
    threads: study.threads
    resources:
        mem_mb=memory("report"),
        runtime=duration("report"),
    message:
        "{wildcards.study}: report"
    shell:
        "logged {log} ddis report --config results/{wildcards.study}/config.yaml"
