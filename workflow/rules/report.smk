rule report:
    input:
        begin,
        tables=expand("results/{{study}}/tables/{name}", name=TABLES),
        figures=expand("results/{{study}}/figures/{name}", name=figure_names(study)),
        cards=expand(
            "results/{{study}}/data/{problem}/{name}",
            problem=study.problems,
            name=["card.md", "pairs.png"],
        ),
        models=model_files("model.json"),
        denoising=prior_files("denoising.csv"),
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
    params:
        settings=settings("report"),
        code=code("report"),
        template=file_digest(PACKAGE / "evaluation" / "templates" / "report.html"),
    message:
        "{wildcards.study}: report"
    shell:
        "logged {log} ddis report --config results/{wildcards.study}/config.yaml"
