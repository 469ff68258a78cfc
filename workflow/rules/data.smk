localrules:
    study,


rule study:
    output:
        "results/{study}/config.yaml",
    log:
        "results/{study}/logs/study.log",
    benchmark:
        "results/{study}/benchmarks/study.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        settings=json.dumps(study.resolved()),
    message:
        "study {wildcards.study}: configuration"
    shell:
        "logged {log} ddis study --settings {params.settings:q}"


rule generate:
    input:
        config=ancient("results/{study}/config.yaml"),
    output:
        "results/{study}/data/{problem}/{split}.h5",
    log:
        "results/{study}/logs/generate/{problem}-{split}.log",
    benchmark:
        "results/{study}/benchmarks/generate/{problem}-{split}.tsv"
    conda:
        "../../environment.yml"
    threads: study.threads
    resources:
        mem_mb=8000,
        runtime=240,
    params:
        settings=settings("generate"),
        code=problem_code("generate"),
    message:
        "{wildcards.problem}: generate the {wildcards.split} split"
    shell:
        "logged {log} ddis generate --config {input.config}"
        " --problem {wildcards.problem} --split {wildcards.split}"


rule card:
    input:
        config=ancient("results/{study}/config.yaml"),
        splits=expand(
            "results/{{study}}/data/{{problem}}/{split}.h5",
            split=["train", "validation", "test"],
        ),
    output:
        "results/{study}/data/{problem}/card.md",
        "results/{study}/data/{problem}/card.yaml",
        "results/{study}/data/{problem}/pairs.png",
    log:
        "results/{study}/logs/card/{problem}.log",
    benchmark:
        "results/{study}/benchmarks/card/{problem}.tsv"
    conda:
        "../../environment.yml"
    threads: study.threads
    resources:
        mem_mb=16000,
        runtime=60,
    params:
        settings=settings("card"),
        code=problem_code("card"),
    message:
        "{wildcards.problem}: dataset card"
    shell:
        "logged {log} ddis card --config {input.config} --problem {wildcards.problem}"


rule pairs:
    input:
        config=ancient("results/{study}/config.yaml"),
    output:
        "results/{study}/data/{problem}/pairs-{percent}.csv",
    log:
        "results/{study}/logs/pairs/{problem}-{percent}.log",
    benchmark:
        "results/{study}/benchmarks/pairs/{problem}-{percent}.tsv"
    conda:
        "../../environment.yml"
    threads: study.threads
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        settings=settings("pairs"),
        code=code("pairs"),
    message:
        "{wildcards.problem}: choose {wildcards.percent} % of the pairs"
    shell:
        "logged {log} ddis pairs --config {input.config}"
        " --problem {wildcards.problem} --percent {wildcards.percent}"
