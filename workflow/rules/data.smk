rule generate:
    input:
        reads("generate"),
    output:
        "results/{study}/data/{problem}/{split}.h5",
    log:
        "results/{study}/logs/generate/{problem}-{split}.log",
    benchmark:
        "results/{study}/benchmarks/generate/{problem}-{split}.tsv"
    threads: study.data.workers
    resources:
        mem_mb=memory("generate"),
        runtime=duration("generate"),
    message:
        "{wildcards.problem}: generate the {wildcards.split} split"
    shell:
        "logged {log} ddis generate --config results/{wildcards.study}/config.yaml"
        " --problem {wildcards.problem} --split {wildcards.split}"


rule card:
    input:
        reads("card"),
    output:
        "results/{study}/data/{problem}/card.md",
        "results/{study}/data/{problem}/card.yaml",
        "results/{study}/data/{problem}/pairs.png",
    log:
        "results/{study}/logs/card/{problem}.log",
    benchmark:
        "results/{study}/benchmarks/card/{problem}.tsv"
    threads: study.threads
    resources:
        mem_mb=memory("card"),
        runtime=duration("card"),
    message:
        "{wildcards.problem}: dataset card"
    shell:
        "logged {log} ddis card --config results/{wildcards.study}/config.yaml --problem {wildcards.problem}"


rule pairs:
    input:
        reads("pairs"),
    output:
        "results/{study}/data/{problem}/pairs-{percent}.csv",
    log:
        "results/{study}/logs/pairs/{problem}-{percent}.log",
    benchmark:
        "results/{study}/benchmarks/pairs/{problem}-{percent}.tsv"
    threads: study.threads
    resources:
        mem_mb=memory("pairs"),
        runtime=duration("pairs"),
    message:
        "{wildcards.problem}: choose {wildcards.percent} % of the pairs"
    shell:
        "logged {log} ddis pairs --config results/{wildcards.study}/config.yaml"
        " --problem {wildcards.problem} --percent {wildcards.percent}"
