rule sample:
    input:
        reads("sample"),
        drawn=shards,
    output:
        "results/{study}/samples/{problem}/{observation}/{run}-{percent}.h5",
    log:
        "results/{study}/logs/sample/{problem}-{observation}-{run}-{percent}.log",
    benchmark:
        "results/{study}/benchmarks/sample/{problem}-{observation}-{run}-{percent}.tsv"
    threads: study.threads
    resources:
        mem_mb=memory("sample"),
        runtime=duration("sample"),
        gpu=GPU,
        local_gpu=LOCAL_GPU,
    message:
        "{wildcards.problem}, {wildcards.observation}: sample {wildcards.run}, {wildcards.percent} %"
    shell:
        "logged {log} ddis sample --config results/{wildcards.study}/config.yaml --problem {wildcards.problem}"
        " --observation {wildcards.observation} --run {wildcards.run} --percent {wildcards.percent}"


# A part of a run's test fields. The mark says that its batches are in the study's work folder; `sample` draws what is missing there.
rule draw:
    input:
        reads("draw"),
    output:
        temp(
            touch(
                "results/{study}/work/{problem}/{observation}/{run}-{percent}/{shard}.drawn"
            )
        ),
    log:
        "results/{study}/logs/draw/{problem}-{observation}-{run}-{percent}-{shard}.log",
    benchmark:
        "results/{study}/benchmarks/draw/{problem}-{observation}-{run}-{percent}-{shard}.tsv"
    threads: study.threads
    resources:
        mem_mb=memory("draw"),
        runtime=duration("draw"),
        gpu=GPU,
        local_gpu=LOCAL_GPU,
    message:
        "{wildcards.problem}, {wildcards.observation}: draw part {wildcards.shard} of {wildcards.run}, {wildcards.percent} %"
    shell:
        "logged {log} ddis draw --config results/{wildcards.study}/config.yaml --problem {wildcards.problem}"
        " --observation {wildcards.observation} --run {wildcards.run} --percent {wildcards.percent} --shard {wildcards.shard}"


rule reference:
    input:
        reads("reference"),
    output:
        "results/{study}/references/{problem}/{observation}.h5",
    log:
        "results/{study}/logs/reference/{problem}-{observation}.log",
    benchmark:
        "results/{study}/benchmarks/reference/{problem}-{observation}.tsv"
    threads: study.threads
    resources:
        mem_mb=memory("reference"),
        runtime=duration("reference"),
    message:
        "{wildcards.problem}, {wildcards.observation}: reference posteriors"
    shell:
        "logged {log} ddis reference --config results/{wildcards.study}/config.yaml --problem {wildcards.problem}"
        " --observation {wildcards.observation}"


rule tune_run:
    input:
        reads("tune"),
    output:
        "results/{study}/tuning/{problem}/{observation}/{run}-{percent}.csv",
    log:
        "results/{study}/logs/tune/{problem}-{observation}-{run}-{percent}.log",
    benchmark:
        "results/{study}/benchmarks/tune/{problem}-{observation}-{run}-{percent}.tsv"
    threads: study.threads
    resources:
        mem_mb=memory("tune"),
        runtime=duration("tune"),
        gpu=GPU,
        local_gpu=LOCAL_GPU,
    message:
        "{wildcards.problem}, {wildcards.observation}: tune {wildcards.run}, {wildcards.percent} %"
    shell:
        "logged {log} ddis tune --config results/{wildcards.study}/config.yaml --problem {wildcards.problem}"
        " --observation {wildcards.observation} --run {wildcards.run} --percent {wildcards.percent}"


rule check_run:
    input:
        reads("check"),
    output:
        "results/{study}/models/{problem}/checks/{observation}/{run}-{percent}.json",
    log:
        "results/{study}/logs/check/{problem}-{observation}-{run}-{percent}.log",
    benchmark:
        "results/{study}/benchmarks/check/{problem}-{observation}-{run}-{percent}.tsv"
    threads: study.threads
    resources:
        mem_mb=memory("check"),
        runtime=duration("check"),
        gpu=GPU,
        local_gpu=LOCAL_GPU,
    message:
        "{wildcards.problem}, {wildcards.observation}: check {wildcards.run}, {wildcards.percent} %"
    shell:
        "logged {log} ddis check --config results/{wildcards.study}/config.yaml --problem {wildcards.problem}"
        " --observation {wildcards.observation} --run {wildcards.run} --percent {wildcards.percent}"
