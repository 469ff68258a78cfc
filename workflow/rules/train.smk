# Checkpoints are no outputs: Snakemake would delete them before a training that was interrupted goes on.
rule train_prior:
    input:
        reads("train", model="prior"),
    output:
        "results/{study}/models/{problem}/prior/weights.safetensors",
        "results/{study}/models/{problem}/prior/model.json",
        "results/{study}/models/{problem}/prior/history.csv",
        "results/{study}/models/{problem}/prior/denoising.csv",
    log:
        "results/{study}/logs/train/{problem}-prior.log",
    benchmark:
        "results/{study}/benchmarks/train/{problem}-prior.tsv"
    priority: 2  # most samplings wait for it
    threads: study.threads * PROCESSES
    resources:
        mem_mb=memory("train", model="prior"),
        runtime=duration("train", model="prior"),
        gpu=GPU * PROCESSES,
        nodes=1,
        local_gpu=LOCAL_GPU,
    message:
        "{wildcards.problem}: train the prior"
    shell:
        "logged {log} ddis_train --config results/{wildcards.study}/config.yaml"
        " --problem {wildcards.problem} --model prior"


rule train_on_pairs:
    input:
        reads("train"),
    output:
        "results/{study}/models/{problem}/{model}/weights.safetensors",
        "results/{study}/models/{problem}/{model}/model.json",
        "results/{study}/models/{problem}/{model}/history.csv",
    log:
        "results/{study}/logs/train/{problem}-{model}.log",
    benchmark:
        "results/{study}/benchmarks/train/{problem}-{model}.tsv"
    priority: 1
    threads: study.threads * PROCESSES
    resources:
        mem_mb=memory("train"),
        runtime=duration("train"),
        gpu=GPU * PROCESSES,
        nodes=1,
        local_gpu=LOCAL_GPU,
    message:
        "{wildcards.problem}: train {wildcards.model}"
    shell:
        "logged {log} ddis_train --config results/{wildcards.study}/config.yaml"
        " --problem {wildcards.problem} --model {wildcards.model}"
